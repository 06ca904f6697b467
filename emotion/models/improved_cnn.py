"""The improved CNN: four convolution stages, each halving the maps, and three linear layers.

Seven classes, 48x48 gray, 1,636,551 parameters. Published: 58 % on validation.
"""

from collections.abc import Sequence

from torch import nn

from emotion.models.blocks import FaceNetwork, check_input, check_length, conv_stages


class ImprovedCNN(FaceNetwork):
    """Faces (B, in_channels, S, S), S >= 16, to logits (B, num_classes); maps: 48 -> 24 -> 12 -> 6 -> 3.

    `hidden` are the sizes of the two hidden layers, `dropout` the shares that are dropped after each of them.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        input_size: int = 48,
        widths: Sequence[int] = (32, 64, 128, 256),
        hidden: Sequence[int] = (512, 128),
        dropout: Sequence[float] = (0.5, 0.25),
    ) -> None:
        super().__init__()
        side = check_input("ImprovedCNN", in_channels, input_size, len(widths))
        check_length("hidden", hidden, 2)
        check_length("dropout", dropout, 2)
        (hidden1, hidden2), (dropout1, dropout2) = hidden, dropout
        self.features = nn.Sequential(*conv_stages(in_channels, widths))
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(widths[-1] * side**2, hidden1),
            nn.BatchNorm1d(hidden1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout1),
            nn.Linear(hidden1, hidden2),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout2),
            nn.Linear(hidden2, num_classes),
        )
