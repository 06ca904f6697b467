"""Random changes to a batch of training faces, each face its own, on the device that the batch is on.

Most parts are kornia's, whose parameters are drawn per face; torchvision's share one draw per batch. What stands here
is what kornia lacks. All draw from torch's global generator, which the data module seeds for every batch.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from emotion.building import build

Config = Mapping[str, Any]


class ColorJitter(nn.Module):
    """Brightness, contrast, saturation of faces (B, C, H, W) from 0 to 1, factors drawn from [1 - x, 1 + x] per face.

    The arithmetic is torchvision's ColorJitter's. Unlike kornia's it takes grey faces, whose saturation cannot change.
    """

    def __init__(self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0) -> None:
        super().__init__()
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation

    def forward(self, faces: Tensor) -> Tensor:
        """Brightness first, then contrast about each face's mean, then saturation."""
        faces = (faces * self._factor(faces, self.brightness)).clamp_(0, 1)
        mean = faces.mean((1, 2, 3), keepdim=True)
        faces = mean.lerp(faces, self._factor(faces, self.contrast)).clamp_(0, 1)
        if faces.shape[1] == 3 and self.saturation:
            faces = faces.mean(1, keepdim=True).lerp(faces, self._factor(faces, self.saturation)).clamp_(0, 1)
        return faces

    def _factor(self, faces: Tensor, spread: float) -> Tensor:
        return torch.empty(len(faces), 1, 1, 1, device=faces.device).uniform_(1 - spread, 1 + spread)


def augmentation(parts: Mapping[str, Config]) -> nn.Module:
    """The parts of conf/augment in their order; a part that was taken away (`~augment.blur`) is not there."""
    return nn.Sequential(*(build(part) for part in parts.values()))
