"""V4: residual blocks gated by squeeze-and-excitation and by spatial attention, then a two-layer classifier.

Six classes, 64x64 RGB, 5,566,542 parameters; published at 71.74 % on FER2013 without neutral.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import relu

from emotion.models.blocks import SpatialAttention, SqueezeExcitation


class AttentionBlock(nn.Module):
    """`convs` 3x3 convolutions beside a 1x1 skip, then ReLU, SE, spatial attention, max pool: the side is halved."""

    def __init__(self, in_channels: int, out_channels: int, convs: int, reduction: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, o in pairwise((in_channels, *[out_channels] * convs)):
            layers += [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers[:-1])
        self.skip = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels))
        self.channel_attention = SqueezeExcitation(out_channels, reduction)
        self.spatial_attention = SpatialAttention()
        self.pool = nn.MaxPool2d(2)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, i, H, W) to (B, o, H/2, W/2)."""
        maps = relu(self.body(maps) + self.skip(maps))
        pooled: Tensor = self.pool(self.spatial_attention(self.channel_attention(maps)))
        return pooled


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
        dropout: tuple[float, float] = (0.5, 0.3),
    ) -> None:
        super().__init__()
        if input_size < 2 ** len(widths):
            raise ValueError(f"V4Attention halves its input {len(widths)} times: {input_size} pixels are too few.")
        steps = zip(pairwise((in_channels, *widths)), convs, strict=True)
        self.features = nn.Sequential(*(AttentionBlock(i, o, n, reduction) for (i, o), n in steps))
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout[0]),
            nn.Linear(widths[-1], hidden),
            nn.ReLU(inplace=True),
            nn.BatchNorm1d(hidden),
            nn.Dropout(dropout[1]),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, faces: Tensor) -> Tensor:
        """(B, in_channels, S, S) to (B, num_classes)."""
        logits: Tensor = self.head(self.features(faces))
        return logits
