"""Parts that several networks share."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


class FaceNetwork(nn.Module):
    """What every network here is: `features`, then `head`."""

    features: nn.Module
    head: nn.Module

    def forward(self, faces: Tensor) -> Tensor:
        """(B, in_channels, S, S) to logits (B, num_classes)."""
        logits: Tensor = self.head(self.features(faces))
        return logits

    def cam_layer(self) -> str:
        """The name of the layer that Grad-CAM explains: the last of the widest convolutions that see round them.

        Of 1x1 convolutions, such as a skip's, and of an attention's single map it is none.
        """
        seeing = [
            (layer.out_channels, name)
            for name, layer in self.features.named_modules(prefix="features")
            if isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1
        ]
        widest = max(channels for channels, _ in seeing)
        last: str = [name for channels, name in seeing if channels == widest][-1]
        return last

    def depths(self) -> dict[str, int]:
        """Each parameter's block, counted from 0 at the input; the head is the last."""
        places = [name.split(".") for name, _ in self.named_parameters()]
        blocks = sorted({int(place[1]) for place in places if place[0] == "features"})
        return {
            ".".join(place): blocks.index(int(place[1])) if place[0] == "features" else len(blocks) for place in places
        }


class SqueezeExcitation(nn.Module):
    """Weighs channels by what the whole map holds: Hu et al. 2018, https://arxiv.org/abs/1709.01507."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        narrow = _reduced(channels, reduction)
        self.weights = nn.Sequential(
            nn.Linear(channels, narrow), nn.ReLU(inplace=True), nn.Linear(narrow, channels), nn.Sigmoid()
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        weights: Tensor = self.weights(maps.mean((2, 3)))
        return maps * weights[:, :, None, None]


class ChannelAttention(nn.Module):
    """Weighs channels by their means and their maxima, through one MLP without biases: CBAM section 3.1."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        narrow = _reduced(channels, reduction)
        self.mlp = nn.Sequential(
            nn.Linear(channels, narrow, bias=False), nn.ReLU(inplace=True), nn.Linear(narrow, channels, bias=False)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        weights: Tensor = (self.mlp(maps.mean((2, 3))) + self.mlp(maps.amax((2, 3)))).sigmoid()
        return maps * weights[:, :, None, None]


class SpatialAttention(nn.Module):
    """Weighs places by the mean and the maximum over channels: CBAM section 3.2, https://arxiv.org/abs/1807.06521.

    `norm` puts a batch normalisation in the place of the convolution's bias, as the paper's own code does.
    """

    def __init__(self, kernel_size: int = 7, norm: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=not norm)
        self.norm = nn.BatchNorm2d(1) if norm else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return maps * self.attention(maps)

    def attention(self, maps: Tensor) -> Tensor:
        """Where it looks: (B, 1, H, W), 0 to 1."""
        summary = torch.cat([maps.mean(1, keepdim=True), maps.amax(1, keepdim=True)], 1)
        where: Tensor = self.norm(self.conv(summary)).sigmoid()
        return where


class CBAM(nn.Sequential):
    """Channel, then spatial attention: Woo et al. 2018, https://arxiv.org/abs/1807.06521."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__(ChannelAttention(channels, reduction), SpatialAttention(norm=True))


class ResidualBlock(nn.Module):
    """`convs` 3x3 convolutions beside a skip, then ReLU: He et al. 2016, https://arxiv.org/abs/1512.03385.

    The first convolution takes the stride; the skip is a 1x1 convolution where the shape changes, else the maps.
    """

    def __init__(
        self, in_channels: int, out_channels: int, convs: int = 2, stride: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, o in pairwise((in_channels, *[out_channels] * convs)):
            step = 1 if layers else stride
            layers += [nn.Conv2d(i, o, 3, step, 1, bias=bias), nn.BatchNorm2d(o), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers[:-1])
        same = in_channels == out_channels and stride == 1
        project = (nn.Conv2d(in_channels, out_channels, 1, stride, bias=bias), nn.BatchNorm2d(out_channels))
        self.skip = nn.Identity() if same else nn.Sequential(*project)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, i, H, W) to (B, o, H / stride, W / stride)."""
        return relu(self.body(maps) + self.skip(maps))


def residual_stages(
    in_channels: int,
    widths: Sequence[int],
    convs: Sequence[int],
    attention: Callable[[int], Iterable[nn.Module]] = lambda width: (),
) -> list[nn.Module]:
    """For each width a residual block of so many convolutions, `attention(width)`, a max pool that halves the side."""
    return [
        nn.Sequential(ResidualBlock(i, o, n, bias=True), *attention(o), nn.MaxPool2d(2))
        for (i, o), n in zip(pairwise((in_channels, *widths)), convs, strict=True)
    ]


def conv_stages(in_channels: int, widths: Sequence[int]) -> list[nn.Module]:
    """For each width a 3x3 convolution, batch normalisation, ReLU and a max pool that halves the side."""
    return [
        nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        for i, o in pairwise((in_channels, *widths))
    ]


def flat_head(numbers: int, hidden: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Maps of so many numbers a face, laid out flat, through one hidden layer to logits (B, num_classes)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(numbers, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(hidden, num_classes),
    )


def pooled_head(channels: int, hidden: int, num_classes: int, dropout: Sequence[float]) -> nn.Sequential:
    """Maps (B, channels, h, w), averaged over their places, through one hidden layer to logits (B, num_classes)."""
    early, late = dropout
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(early),
        nn.Linear(channels, hidden),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(hidden),
        nn.Dropout(late),
        nn.Linear(hidden, num_classes),
    )


def check_input(network: str, in_channels: int, input_size: int, halvings: int) -> int:
    """The side of the maps after so many halvings of the input's.

    Raises:
        ValueError: it has no pixel left, or the input no channel; names what was found and what is expected.
    """
    least: int = 2**halvings
    if in_channels < 1 or input_size < least:
        raise ValueError(
            f"{network} halves its input {halvings} times and takes at least {least}x{least} pixels of at least one "
            f"channel; found {input_size}x{input_size} pixels of {in_channels}. Choose another input."
        )
    return input_size // least


def _reduced(channels: int, reduction: int) -> int:
    if not 1 <= reduction <= channels:
        raise ValueError(f"{channels} channels cannot be reduced by {reduction}; expected 1 to {channels}.")
    return channels // reduction
