"""V1: V2 without attention and without its fourth residual stage.

Six classes, 64x64 RGB, 1,814,214 parameters. Its document is lost; this follows the V4 document, which lists the
changes V2 made.
"""

from collections.abc import Sequence

from torch import nn

from emotion.models.blocks import FaceNetwork, check_input, pooled_head, residual_stages


class V1CNN(FaceNetwork):
    """Faces (B, in_channels, S, S), S >= 8, to logits (B, num_classes); maps: 64 -> 32 -> 16 -> 8.

    `widths` and `convs` are the channels and the number of convolutions of each stage, `dropout` the two shares that
    are dropped before and after the hidden layer.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        input_size: int = 64,
        widths: Sequence[int] = (64, 128, 256),
        convs: Sequence[int] = (2, 2, 3),
        hidden: int = 128,
        dropout: Sequence[float] = (0.5, 0.3),
    ) -> None:
        super().__init__()
        check_input("V1CNN", in_channels, input_size, len(widths))
        self.features = nn.Sequential(*residual_stages(in_channels, widths, convs))
        self.head = pooled_head(widths[-1], hidden, num_classes, dropout)
