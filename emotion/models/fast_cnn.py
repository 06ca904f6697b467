"""The fast CNN: a small residual network for minutes on a processor.

Seven classes, 48x48 grey; 1.9 million parameters, a tenth of V4's arithmetic. Half of the side goes in the first
convolution, most of the arithmetic stands where the maps are 12 and 6 wide. SiLU: https://arxiv.org/abs/1702.03118.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import silu

from emotion.models.blocks import FaceNetwork, check_input


class FastCNN(FaceNetwork):
    """Faces (B, in_channels, S, S), S at least 8, to logits (B, num_classes); 48 -> 24 -> 12 -> 6."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        input_size: int = 48,
        widths: Sequence[int] = (32, 64, 128, 256),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        check_input("FastCNN", in_channels, input_size, 3)
        first, second, third, last = widths
        self.features = nn.Sequential(
            _conv(in_channels, first, stride=2),
            nn.Sequential(_conv(first, second), nn.MaxPool2d(2)),
            nn.Sequential(_conv(second, third), _Residual(third), nn.MaxPool2d(2)),
            nn.Sequential(_conv(third, last), _Residual(last)),
        )
        self.head = nn.Sequential(_GlobalMaxPool(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(last, num_classes))


class _GlobalMaxPool(nn.Module):
    """The largest value of each map. torch's own has a gradient that no ONNX file can hold."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, 1, 1)."""
        return maps.amax((2, 3), keepdim=True)


class _Residual(nn.Module):
    """Two convolutions beside the maps; the last scale begins at nothing, so that the block begins as the maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(norm.weight)
        self.body = nn.Sequential(
            _conv(channels, channels), nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return silu(maps + self.body(maps))


def _conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.SiLU(inplace=True),
    )
