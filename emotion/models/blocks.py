"""Layers and blocks that several networks share."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from emotion.errors import UserError, counted


class FaceNetwork(nn.Module):
    """Base class of all networks: `features`, then `head`."""

    features: nn.Module
    head: nn.Module

    def forward(self, faces: Tensor) -> Tensor:
        """Map faces (B, in_channels, S, S) to logits (B, num_classes)."""
        maps: Tensor = self.features(faces)
        channels_last = maps.dim() == 4 and maps.is_contiguous(memory_format=torch.channels_last)
        if maps.requires_grad and channels_last and not torch.compiler.is_compiling():
            # the gradients of pooling and flattening are contiguous, in which all of the last stage would be slow
            maps.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: gradient.contiguous(memory_format=torch.channels_last)
            )
        logits: Tensor = self.head(maps)
        return logits

    def cam_layer(self) -> str:
        """Return the name of the layer that Grad-CAM explains: the last of the widest spatial convolutions.

        1x1 convolutions (skip connections) and the single-channel convolution of an attention map do not qualify.
        """
        spatial = [
            (layer.out_channels, name)
            for name, layer in self.features.named_modules(prefix="features")
            if isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1
        ]
        width = max(channels for channels, _ in spatial)
        last: str = [name for channels, name in spatial if channels == width][-1]
        return last

    def depths(self) -> dict[str, int]:
        """Return the block index of each parameter, from 0 at the input; the head has the largest."""
        paths = [name.split(".") for name, _ in self.named_parameters()]
        blocks = sorted({int(path[1]) for path in paths if path[0] == "features"})
        return {".".join(path): blocks.index(int(path[1])) if path[0] == "features" else len(blocks) for path in paths}


def check_network(net: object, name: str) -> None:
    """Raise UserError unless a network has the parts of `FaceNetwork`."""
    missing = [part for part in ("features", "head") if not isinstance(getattr(net, part, None), nn.Module)]
    if missing or not isinstance(net, FaceNetwork):
        found = f"a network without {' and '.join(missing)}" if missing else f"a {type(net).__name__}"
        raise UserError(
            f"{name}: found {found}; expected a FaceNetwork with the modules `features` (faces to maps) and `head` "
            f"(maps to logits)."
        )


class SqueezeExcitation(nn.Module):
    """Scale channels by a gate computed from their means: Hu et al. 2018, https://arxiv.org/abs/1709.01507."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        bottleneck = _reduced(channels, reduction)
        self.weights = nn.Sequential(
            nn.Linear(channels, bottleneck), nn.ReLU(inplace=True), nn.Linear(bottleneck, channels), nn.Sigmoid()
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        weights: Tensor = self.weights(maps.mean((2, 3)))
        return maps * weights[:, :, None, None]


class ChannelAttention(nn.Module):
    """Scale channels by their means and maxima, passed through one MLP without biases: CBAM, section 3.1."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        bottleneck = _reduced(channels, reduction)
        self.mlp = nn.Sequential(
            nn.Linear(channels, bottleneck, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(bottleneck, channels, bias=False),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        weights: Tensor = (self.mlp(maps.mean((2, 3))) + self.mlp(maps.flatten(2).max(2).values)).sigmoid()
        return maps * weights[:, :, None, None]


class SpatialAttention(nn.Module):
    """Scale positions by the mean and maximum over channels: CBAM, section 3.2, https://arxiv.org/abs/1807.06521.

    `norm` replaces the bias of the convolution with batch normalization, as the paper's code does.
    """

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=not norm)
        self.norm = nn.BatchNorm2d(1) if norm else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return maps * self.attention(maps)

    def attention(self, maps: Tensor) -> Tensor:
        """Return the attention map (B, 1, H, W), from 0 to 1."""
        maxima = maps.max(1, keepdim=True).values  # not amax: https://github.com/pytorch/pytorch/issues/186799
        summary = torch.cat([maps.mean(1, keepdim=True), maxima], 1)
        attention: Tensor = self.norm(self.conv(summary)).sigmoid()
        return attention


class CBAM(nn.Sequential):
    """Channel attention, then spatial attention: Woo et al. 2018, https://arxiv.org/abs/1807.06521."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__(ChannelAttention(channels, reduction), SpatialAttention(norm=True))


class ResidualBlock(nn.Module):
    """`convs` 3x3 convolutions with a skip connection, then ReLU: He et al. 2016, https://arxiv.org/abs/1512.03385.

    The first convolution has the stride. The skip is the identity, or a 1x1 convolution where the shape changes.
    """

    def __init__(
        self, in_channels: int, out_channels: int, convs: int = 2, stride: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, o in pairwise((in_channels, *[out_channels] * convs)):
            layers += [
                nn.Conv2d(i, o, 3, 1 if layers else stride, 1, bias=bias),
                nn.BatchNorm2d(o),
                nn.ReLU(inplace=True),
            ]
        self.body = nn.Sequential(*layers[:-1])
        same = in_channels == out_channels and stride == 1
        projection = (nn.Conv2d(in_channels, out_channels, 1, stride, bias=bias), nn.BatchNorm2d(out_channels))
        self.skip = nn.Identity() if same else nn.Sequential(*projection)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        return relu(self.body(maps) + self.skip(maps))


def residual_stages(
    in_channels: int,
    widths: Sequence[int],
    convs: Sequence[int],
    attention: Callable[[int], Iterable[nn.Module]] = lambda width: (),
) -> list[nn.Module]:
    """Build a stage per width: a residual block of `convs` convolutions, `attention(width)`, a 2x2 max pool.

    Raises:
        ValueError: `convs` does not have one value per width.
    """
    check_length("convs", convs, len(widths), ", one per width")
    return [
        nn.Sequential(ResidualBlock(i, o, n, bias=True), *attention(o), nn.MaxPool2d(2))
        for (i, o), n in zip(pairwise((in_channels, *widths)), convs, strict=True)
    ]


def conv_stages(in_channels: int, widths: Sequence[int]) -> list[nn.Module]:
    """Build a stage per width: a 3x3 convolution, batch normalization, ReLU, a 2x2 max pool."""
    return [
        nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        for i, o in pairwise((in_channels, *widths))
    ]


def flat_head(in_features: int, hidden: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Build a head that flattens maps to (B, in_features), with one hidden layer."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_features, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(hidden, num_classes),
    )


def pooled_head(channels: int, hidden: int, num_classes: int, dropout: Sequence[float]) -> nn.Sequential:
    """Build a head that averages maps to (B, channels), with one hidden layer and dropout before and after it.

    Raises:
        ValueError: `dropout` does not have two values.
    """
    check_length("dropout", dropout, 2)
    first, last = dropout
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(first),
        nn.Linear(channels, hidden),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(hidden),
        nn.Dropout(last),
        nn.Linear(hidden, num_classes),
    )


def check_input(network: str, in_channels: int, input_size: int, halvings: int) -> int:
    """Return the side of the maps after `halvings` halvings; raises ValueError if the input is too small for them."""
    minimum: int = 2**halvings
    if in_channels < 1 or input_size < minimum:
        raise ValueError(
            f"{network} halves its input {halvings} times: expected at least {minimum}x{minimum} pixels and 1 channel, "
            f"found {input_size}x{input_size} pixels and {in_channels}. Choose another input."
        )
    return input_size // minimum


def check_length(name: str, values: Sequence[float], length: int, meaning: str = "") -> None:
    """Raise ValueError unless the argument `name` has `length` values."""
    if len(values) != length:
        raise ValueError(f"{name}: found {counted(len(values), 'value')}, {list(values)}; expected {length}{meaning}.")


def _reduced(channels: int, reduction: int) -> int:
    if not 1 <= reduction <= channels:
        raise ValueError(f"reduction={reduction}: expected 1 to {channels}, the number of channels.")
    return channels // reduction
