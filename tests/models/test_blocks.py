import pytest
import torch
from torch import nn

from emotion.errors import UserError
from emotion.models.blocks import (
    CBAM,
    ChannelAttention,
    FaceNetwork,
    ResidualBlock,
    SpatialAttention,
    SqueezeExcitation,
    check_network,
)

MAPS = torch.rand(2, 32, 6, 6, generator=torch.Generator().manual_seed(0))


def filled(block: nn.Module, weight: float) -> nn.Module:
    """Give every linear layer this weight and no bias."""
    for layer in block.modules():
        if isinstance(layer, nn.Linear):
            nn.init.constant_(layer.weight, weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return block


def test_squeeze_excitation_is_the_sigmoid_of_two_layers_of_the_means() -> None:
    """Two channels of mean 1 and 3, of maximum 9: one hidden unit of 0.5 * 4, then 0.5 * 2 for each channel."""
    maps = torch.zeros(1, 2, 3, 3)
    maps[0, :, 0, 0], maps[0, 1, 1, 1:] = 9, 9
    block = filled(SqueezeExcitation(2, 2), 0.5)
    torch.testing.assert_close(block(maps), maps * torch.tensor(1.0).sigmoid())
    with torch.inference_mode():
        block.weights[2].weight[1] = -1  # the second channel: -2
        expected = maps * torch.tensor([1.0, -2.0]).sigmoid().view(1, 2, 1, 1)
        torch.testing.assert_close(block(maps), expected)
        torch.testing.assert_close(filled(SqueezeExcitation(2, 2), -1.0)(maps), maps / 2)  # by the ReLU


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


def test_spatial_attention_sees_the_mean_first_and_seven_pixels_around() -> None:
    attention = SpatialAttention()
    nn.init.constant_(attention.conv.weight[:, :1], 1)  # of the mean
    nn.init.zeros_(attention.conv.weight[:, 1:])
    nn.init.constant_(attention.conv.bias, 0.5)  # type: ignore[arg-type]
    maps = torch.zeros(1, 4, 9, 9)
    maps[0, 0, 4, 4] = 8  # a mean of 2
    expected = torch.full((1, 1, 9, 9), 0.5)
    expected[..., 1:8, 1:8] = 2.5
    torch.testing.assert_close(attention.attention(maps), expected.sigmoid())
    torch.testing.assert_close(attention(maps), maps * torch.tensor(2.5).sigmoid())


def test_channel_attention_adds_the_outputs_for_mean_and_maximum() -> None:
    """Two maps of mean 1 in both channels, the second with a peak of 9: 0.5 (0.5 (1 + 1)) + 0.5 (0.5 (1 + 9)) = 3."""
    maps = torch.ones(1, 2, 3, 3)
    maps[0, 1] = 0
    maps[0, 1, 2, 0] = 9
    torch.testing.assert_close(filled(ChannelAttention(2, 2), 0.5)(maps), maps * torch.tensor(3.0).sigmoid())
    torch.testing.assert_close(filled(ChannelAttention(2, 2), -1.0)(maps), maps / 2)  # the hidden unit is rectified


def test_channel_attention_scales_channels_by_their_mean_and_maximum() -> None:
    attention = ChannelAttention(32)
    assert attention.mlp[0].out_features == 32 // 16
    with torch.inference_mode():
        ratio = attention(MAPS) / MAPS
        shuffled = attention(MAPS.flatten(2)[:, :, torch.randperm(36)].view_as(MAPS))
        twice = attention.mlp(torch.ones(1, 32)) * 2  # mean and maximum are both 1
        torch.testing.assert_close(attention(torch.ones(1, 32, 2, 2))[:, :, 0, 0], twice.sigmoid())
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))
    torch.testing.assert_close(shuffled.mean((2, 3)), attention(MAPS).mean((2, 3)))  # positions do not matter


def test_cbam_is_channel_attention_then_normalized_spatial_attention() -> None:
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


def test_a_residual_block_adds_its_input_before_the_last_activation() -> None:
    block = ResidualBlock(3, 3).eval()
    with torch.inference_mode():
        maps = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(block(maps), (block.body(maps) + maps).relu())
    assert [type(layer) for layer in block.body] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d, nn.BatchNorm2d]
    assert [layer.stride for layer in ResidualBlock(3, 4, 3, 2).body if isinstance(layer, nn.Conv2d)] == [
        (2, 2), (1, 1), (1, 1),
    ]  # fmt: skip
    assert isinstance(ResidualBlock(3, 3, stride=2).skip, nn.Sequential)
    for bias in (False, True):
        convolutions = [layer for layer in ResidualBlock(3, 4, bias=bias).modules() if isinstance(layer, nn.Conv2d)]
        assert [layer.bias is not None for layer in convolutions] == [bias] * 3


@pytest.mark.parametrize(("reduction", "accepted"), [(0, False), (1, True), (8, True), (9, False)])
def test_a_reduction_is_at_most_the_number_of_channels(reduction: int, accepted: bool) -> None:
    for block in (SqueezeExcitation, ChannelAttention):
        if accepted:
            assert next(block(8, reduction).parameters()).shape == (8 // reduction, 8)
        else:
            with pytest.raises(ValueError, match="expected 1 to 8, the number of channels"):
                block(8, reduction)


class Stages(FaceNetwork):
    """Convolutions of 8, 16 and 16 channels, then an attention map, a wider 1x1 convolution and a head."""

    def __init__(self) -> None:
        super().__init__()
        wide = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3))
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), wide, SpatialAttention(), nn.Conv2d(16, 32, 1))
        self.head = nn.Sequential(nn.Linear(32, 2))


def test_grad_cam_explains_the_last_of_the_widest_spatial_convolutions() -> None:
    assert Stages().cam_layer() == "features.2.1"


def test_depths_count_the_blocks_that_have_parameters() -> None:
    depths = Stages().depths()
    assert depths["features.0.bias"] == 0
    assert depths["features.2.0.weight"] == depths["features.2.1.bias"] == 1
    assert (depths["features.3.conv.weight"], depths["features.4.weight"], depths["head.0.bias"]) == (2, 3, 4)


@pytest.mark.parametrize("head", [nn.AdaptiveAvgPool2d(1), nn.Flatten()], ids=["pooled", "flat"])
def test_the_features_get_gradients_in_the_memory_format_of_their_maps(head: nn.Module) -> None:
    network = FaceNetwork()
    network.features, network.head = nn.Conv2d(1, 8, 3), head
    network.to(memory_format=torch.channels_last)
    formats: list[bool] = []
    network.features.register_full_backward_hook(
        lambda module, inputs, outputs: formats.append(outputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    network(torch.rand(2, 1, 6, 6, requires_grad=True)).square().sum().backward()
    assert formats == [True]


def test_a_network_without_a_part_is_refused() -> None:
    network = FaceNetwork()
    network.features = nn.Identity()
    with pytest.raises(UserError, match=r"mynet\.MyNet: found a network without head; expected a FaceNetwork"):
        check_network(network, "mynet.MyNet")
    network.head = nn.Flatten()
    check_network(network, "mynet.MyNet")
