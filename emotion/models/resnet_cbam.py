"""ResNet with CBAM: a ResNet-18 with channel and spatial attention after each of its four stages.

Seven classes, 48x48 gray, 11,217,751 parameters. Published: about 60 % on training and validation.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from emotion.models.blocks import CBAM, FaceNetwork, ResidualBlock, check_input


class ResNetCBAM(FaceNetwork):
    """Faces (B, in_channels, S, S), S >= 32, to logits (B, num_classes); maps: 48 -> 12 -> 12 -> 6 -> 3 -> 2."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        input_size: int = 48,
        widths: Sequence[int] = (64, 128, 256, 512),
        blocks: int = 2,
        reduction: int = 16,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        # the stem halves twice, each stage but the first once
        check_input("ResNetCBAM", in_channels, input_size, 1 + len(widths))
        if blocks < 1:
            raise ValueError(f"blocks={blocks}: expected at least 1 per stage.")
        stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.features = nn.Sequential(
            stem,
            *(
                nn.Sequential(
                    ResidualBlock(i, o, stride=1 if index == 0 else 2),
                    *(ResidualBlock(o, o) for _ in range(blocks - 1)),
                    CBAM(o, reduction),
                )
                for index, (i, o) in enumerate(pairwise((widths[0], *widths)))
            ),
        )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1], num_classes)
        )
