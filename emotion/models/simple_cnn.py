"""The simple CNN: two convolutions, each with a max pool, and two linear layers.

Seven classes, 48x48 gray, 595,655 parameters. Published: about 52 % on validation and 70 % on training. (The document
swaps the two figures, then calls the result overfitting.)
"""

from collections.abc import Sequence

from torch import nn

from emotion.models.blocks import FaceNetwork, check_input, check_length, flat_head


class SimpleCNN(FaceNetwork):
    """Faces (B, in_channels, S, S), S >= 4, to logits (B, num_classes); maps: 48 -> 24 -> 12.

    `widths` are the channels of the two convolutions.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        input_size: int = 48,
        widths: Sequence[int] = (16, 32),
        hidden: int = 128,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        side = check_input("SimpleCNN", in_channels, input_size, 2)
        check_length("widths", widths, 2)
        first, second = widths
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, first, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.head = flat_head(second * side**2, hidden, num_classes, dropout)
