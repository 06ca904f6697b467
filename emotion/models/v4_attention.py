"""V4: residual blocks gated by squeeze-and-excitation and by spatial attention, then a two-layer classifier.

Six classes, 64x64 RGB, 5,566,542 parameters; published at 71.74 % on FER2013 without neutral.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from emotion.models.blocks import ResidualBlock, SpatialAttention, SqueezeExcitation, check_input, pooled_head


class V4Attention(nn.Module):
    """Faces (B, in_channels, S, S), S at least 16, to logits (B, num_classes); 64 -> 32 -> 16 -> 8 -> 4."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        input_size: int = 64,
        widths: Sequence[int] = (64, 128, 256, 512),
        convs: Sequence[int] = (2, 2, 3, 2),
        reduction: int = 16,
        hidden: int = 128,
        dropout: Sequence[float] = (0.5, 0.3),
    ) -> None:
        super().__init__()
        check_input("V4Attention", in_channels, input_size, len(widths))
        self.features = nn.Sequential(
            *(
                nn.Sequential(
                    ResidualBlock(i, o, n, bias=True),
                    SqueezeExcitation(o, reduction),
                    SpatialAttention(),
                    nn.MaxPool2d(2),
                )
                for (i, o), n in zip(pairwise((in_channels, *widths)), convs, strict=True)
            )
        )
        self.head = pooled_head(widths[-1], hidden, num_classes, dropout)

    def forward(self, faces: Tensor) -> Tensor:
        """(B, in_channels, S, S) to (B, num_classes)."""
        logits: Tensor = self.head(self.features(faces))
        return logits
