import torch
from torch import nn

from emotion.models.blocks import CBAM, ChannelAttention, ResidualBlock, SpatialAttention, SqueezeExcitation

MAPS = torch.rand(2, 32, 6, 6, generator=torch.Generator().manual_seed(0))


def test_squeeze_excitation_scales_channels() -> None:
    with torch.inference_mode():
        ratio = SqueezeExcitation(32)(MAPS) / MAPS
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))
    assert ((ratio > 0) & (ratio < 1)).all()


def test_spatial_attention_scales_positions() -> None:
    with torch.inference_mode():
        ratio = SpatialAttention()(MAPS) / MAPS
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))


def test_spatial_attention_follows_the_maximum_over_channels() -> None:
    attention = SpatialAttention()
    nn.init.zeros_(attention.conv.weight)
    nn.init.zeros_(attention.conv.bias)  # type: ignore[arg-type]
    attention.conv.weight.data[0, 1, 3, 3] = 1  # the maximum at the position itself
    maps = torch.zeros(1, 32, 6, 6)
    maps[0, 7, 2, 4] = 9
    assert divmod(int(attention.attention(maps).argmax()), 6) == (2, 4)


def test_channel_attention_scales_channels_by_their_mean_and_maximum() -> None:
    attention = ChannelAttention(32)
    with torch.inference_mode():
        ratio = attention(MAPS) / MAPS
        shuffled = attention(MAPS.flatten(2)[:, :, torch.randperm(36)].view_as(MAPS))
        twice = attention.mlp(torch.ones(1, 32)) * 2  # mean and maximum are both 1
        torch.testing.assert_close(attention(torch.ones(1, 32, 2, 2))[:, :, 0, 0], twice.sigmoid())
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))
    torch.testing.assert_close(shuffled.mean((2, 3)), attention(MAPS).mean((2, 3)))  # positions do not matter


def test_cbam_is_channel_attention_then_normalised_spatial_attention() -> None:
    cbam = CBAM(512).eval()
    assert [type(block) for block in cbam] == [ChannelAttention, SpatialAttention]
    assert sum(parameter.numel() for parameter in cbam.parameters()) == 2 * 512 * 32 + 98 + 2


def test_a_residual_block_with_a_zero_body_is_its_skip() -> None:
    same, wider = ResidualBlock(32, 32).eval(), ResidualBlock(32, 64, convs=3, stride=2).eval()
    for block in (same, wider):
        nn.init.zeros_(block.body[-1].weight)  # type: ignore[arg-type]
    with torch.inference_mode():
        assert same(MAPS).equal(MAPS)
        assert wider(MAPS).equal(wider.skip(MAPS).relu())
        assert wider(MAPS).shape == (2, 64, 3, 3)
    assert sum(isinstance(layer, nn.Conv2d) for layer in wider.body) == 3
