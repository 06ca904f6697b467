"""V4: residual stages gated by squeeze-and-excitation and spatial attention, then a two-layer head.

Six classes, 64x64 RGB, 5,566,542 parameters. Published: 71.74 % on FER2013 without neutral.
SE: Hu et al. 2018, https://arxiv.org/abs/1709.01507. Spatial attention: CBAM section 3.2,
https://arxiv.org/abs/1807.06521.
"""

from collections.abc import Sequence

from torch import nn

from emotion.models.blocks import (
    FaceNetwork,
    SpatialAttention,
    SqueezeExcitation,
    check_input,
    pooled_head,
    residual_stages,
)


class V4Attention(FaceNetwork):
    """Faces (B, in_channels, S, S), S >= 16, to logits (B, num_classes); maps: 64 -> 32 -> 16 -> 8 -> 4.

    `widths` and `convs` are the channels and the number of convolutions of each stage, `dropout` the two shares that
    are dropped before and after the hidden layer.
    """

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
            *residual_stages(
                in_channels, widths, convs, lambda width: (SqueezeExcitation(width, reduction), SpatialAttention())
            )
        )
        self.head = pooled_head(widths[-1], hidden, num_classes, dropout)
