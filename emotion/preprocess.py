"""From stored pixels to what a network takes: size, channels and scale, the same in training, evaluation and use."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's convert("L")


class Preprocess(nn.Module):
    """uint8 faces (B, H, W) or (B, H, W, 3) to float (B, channels, size, size), on the device that they are on.

    `scale` and `normalise` are apart because random augmentation stands between them, on values from 0 to 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if channels not in (1, 3) or len(mean) not in (1, channels) or len(std) not in (1, channels):
            raise ValueError(f"input: {channels} channels, mean {mean}, std {std}; expected 1 or 3 channels, one each.")
        self.size, self.channels = size, channels
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def scale(self, pixels: Tensor) -> Tensor:
        """uint8 pixels to values from 0 to 1 in the network's size and channels."""
        faces = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        faces = faces.float().div_(255)
        if faces.shape[1] == 3 and self.channels == 1:
            faces = (faces * faces.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        if faces.shape[-2:] != (self.size, self.size):
            faces = interpolate(faces, (self.size, self.size), mode="bilinear", antialias=True)
        return faces.expand(-1, self.channels, -1, -1)

    def normalise(self, faces: Tensor) -> Tensor:
        """Values from 0 to 1 to mean 0 and deviation 1 by the input's own figures."""
        return (faces - self.mean) / self.std

    def forward(self, pixels: Tensor) -> Tensor:
        """`scale`, then `normalise`."""
        return self.normalise(self.scale(pixels))
