"""The compact CNN: two convolutions, one max pool and two linear layers; 2.4 MB for four classes.

Four classes, 48x48 RGB, 595,076 parameters. Published: a target of at least 85 %, no result.
"""

from collections.abc import Sequence

from torch import nn

from emotion.models.blocks import FaceNetwork, check_input, check_length


class CompactCNN(FaceNetwork):
    """Faces (B, in_channels, S, S), S >= 2, to logits (B, num_classes); maps: 48 -> 24.

    `widths` are the channels of the two convolutions.
    Initial weights: He et al. 2015, https://arxiv.org/abs/1502.01852; normal, fan-out, for the slope of LeakyReLU.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        input_size: int = 48,
        widths: Sequence[int] = (16, 32),
        hidden: int = 32,
        slope: float = 0.1,
    ) -> None:
        super().__init__()
        side = check_input("CompactCNN", in_channels, input_size, 1)
        check_length("widths", widths, 2)
        first, second = widths
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, first, 3, padding=1),
            nn.LeakyReLU(slope, inplace=True),
            nn.Conv2d(first, second, 3, padding=1),
            nn.LeakyReLU(slope, inplace=True),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(second * side**2, hidden),
            nn.LeakyReLU(slope, inplace=True),
            nn.Linear(hidden, num_classes),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, a=slope, mode="fan_out", nonlinearity="leaky_relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
