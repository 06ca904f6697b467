"""The fast CNN: a small residual network that computes mostly on small maps.

Seven classes, 40x40 gray, 667,503 parameters and a thirtieth of V4's FLOPs: trains in minutes on a CPU. For a GPU, make
it wider and set stride=1. SiLU: https://arxiv.org/abs/1702.03118. Pooling before normalization, and the Muon
optimizer for such networks: https://arxiv.org/abs/2404.00498.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import silu

from emotion.models.blocks import FaceNetwork, check_input


class FastCNN(FaceNetwork):
    """Faces (B, in_channels, S, S) to logits (B, num_classes); maps with stride 2: 48 -> 24 -> 12 -> 6 -> 6.

    `widths` are the channels of the first convolution and of each stage; each stage but the last halves the maps.
    `stride` is that of the first convolution. With stride 2, S is at least 8.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        input_size: int = 48,
        widths: Sequence[int] = (24, 48, 96, 128),
        stride: int = 2,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        check_input("FastCNN", in_channels, input_size, len(widths) - 2 + (stride == 2))
        *halving, last = pairwise(widths)
        self.features = nn.Sequential(
            _conv(in_channels, widths[0], stride=stride),
            *(nn.Sequential(*_conv(i, o, halve=True), _Residual(o)) for i, o in halving),
            nn.Sequential(*_conv(*last), _Residual(last[1])),
        )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1], num_classes)
        )


class _Residual(nn.Module):
    """Two convolutions with an identity skip; the last scale starts at 0, so that the block starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(norm.weight)
        self.body = nn.Sequential(
            *_conv(channels, channels), nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return silu(maps + self.body(maps))


def _conv(in_channels: int, out_channels: int, stride: int = 1, *, halve: bool = False) -> nn.Sequential:
    """Build a 3x3 convolution, a max pool if `halve`, batch normalization and SiLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
        *([nn.MaxPool2d(2)] if halve else []),
        nn.BatchNorm2d(out_channels),
        nn.SiLU(inplace=True),
    )
