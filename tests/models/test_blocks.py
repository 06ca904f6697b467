import torch
from torch import nn

from emotion.models.blocks import SpatialAttention, SqueezeExcitation

MAPS = torch.rand(2, 32, 6, 6, generator=torch.Generator().manual_seed(0))


def test_squeeze_excitation_scales_whole_channels() -> None:
    with torch.inference_mode():
        ratio = SqueezeExcitation(32)(MAPS) / MAPS
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))
    assert ((ratio > 0) & (ratio < 1)).all()


def test_spatial_attention_scales_whole_places() -> None:
    with torch.inference_mode():
        ratio = SpatialAttention()(MAPS) / MAPS
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))


def test_spatial_attention_follows_the_brightest_place() -> None:
    part = SpatialAttention()
    nn.init.zeros_(part.conv.weight)
    nn.init.zeros_(part.conv.bias)  # type: ignore[arg-type]
    part.conv.weight.data[0, 1, 3, 3] = 1  # the channels' maximum at the place itself
    maps = torch.zeros(1, 32, 6, 6)
    maps[0, 7, 2, 4] = 9
    assert divmod(int(part.attention(maps).argmax()), 6) == (2, 4)
