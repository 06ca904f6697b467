"""The improved CNN: four normalised convolutions, each halving the side, and three linear layers.

Seven classes, 48x48 grey, 1,636,551 parameters; published at 58 % on validation.
"""

from collections.abc import Sequence

from torch import nn

from emotion.models.blocks import FaceNetwork, check_input, conv_stages


class ImprovedCNN(FaceNetwork):
    """Faces (B, in_channels, S, S), S at least 16, to logits (B, num_classes); 48 -> 24 -> 12 -> 6 -> 3."""

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
        (wide, narrow), (early, late) = hidden, dropout
        self.features = nn.Sequential(*conv_stages(in_channels, widths))
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(widths[-1] * side**2, wide),
            nn.BatchNorm1d(wide),
            nn.ReLU(inplace=True),
            nn.Dropout(early),
            nn.Linear(wide, narrow),
            nn.ReLU(inplace=True),
            nn.Dropout(late),
            nn.Linear(narrow, num_classes),
        )
