"""Parts that several networks share."""

import torch
from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Weighs channels by what the whole map holds: Hu et al. 2018, https://arxiv.org/abs/1709.01507."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        if channels < reduction:
            raise ValueError(f"{channels} channels cannot be reduced by {reduction}; expected at least as many.")
        self.weights = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.ReLU(inplace=True),
            nn.Linear(channels // reduction, channels),
            nn.Sigmoid(),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        weights: Tensor = self.weights(maps.mean((2, 3)))
        return maps * weights[:, :, None, None]


class SpatialAttention(nn.Module):
    """Weighs places by the mean and the maximum over channels: CBAM section 3.2, https://arxiv.org/abs/1807.06521."""

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return maps * self.attention(maps)

    def attention(self, maps: Tensor) -> Tensor:
        """Where it looks: (B, 1, H, W), 0 to 1."""
        summary = torch.cat([maps.mean(1, keepdim=True), maps.amax(1, keepdim=True)], 1)
        where: Tensor = self.conv(summary).sigmoid()
        return where
