"""The baseline of the attention CNN: four convolution stages, each halving the maps, and two linear layers.

Seven classes, 48x48 gray, 3,915,143 parameters. Published: 65.69 %, macro F1 0.621, on the two test sets combined.
"""

from collections.abc import Sequence

from torch import nn

from emotion.models.blocks import FaceNetwork, check_input, conv_stages, flat_head


class BaselineCNN(FaceNetwork):
    """Faces (B, in_channels, S, S), S >= 16, to logits (B, num_classes); maps: 48 -> 24 -> 12 -> 6 -> 3."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        input_size: int = 48,
        widths: Sequence[int] = (64, 128, 256, 512),
        hidden: int = 512,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        side = check_input("BaselineCNN", in_channels, input_size, len(widths))
        self.features = nn.Sequential(*conv_stages(in_channels, widths))
        self.head = flat_head(widths[-1] * side**2, hidden, num_classes, dropout)
