"""From stored pixels to network input: size, channels and scale, the same in training, evaluation and inference."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from emotion.errors import UserError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow's convert("L")


class Preprocess(nn.Module):
    """uint8 faces (B, H, W) or (B, H, W, 3) to float (B, channels, size, size) on their device.

    Random augmentation runs between `shrink`, which reduces size and channels, and `normalize`, which enlarges faces
    and repeats channels, so that it processes as few pixels as possible. Unless an augmentation crops, the center of a
    face enlarged `zoom` times is used: 1.14 is the resize to 255 and center crop to 224 of ImageNet evaluation.

    Raises:
        UserError: Channels, mean and std do not fit together, or zoom is below 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, size: int, channels: int, mean: Sequence[float], std: Sequence[float], zoom: float = 1.0
    ) -> None:
        super().__init__()
        lengths = [len(values) if isinstance(values, Sequence) else 0 for values in (mean, std)]
        if channels not in (1, 3) or not set(lengths) <= {1, channels}:
            raise UserError(
                f"input: {channels} channels, mean {mean}, std {std}; expected 1 or 3 channels and a mean and std each."
            )
        if zoom < 1:
            raise UserError(f"input: zoom {zoom}; expected 1 (the whole face) or more (its center).")
        self.size, self.channels, self.zoomed_size = size, channels, round(size * zoom)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Convert uint8 faces to network input."""
        return self.transform(to_float(pixels))

    def transform(self, faces: Tensor) -> Tensor:
        """Convert values from 0 to 1, (B, 1 or 3, H, W), to network input (B, channels, size, size)."""
        return self.prepare(self.shrink(faces))

    def prepare(self, faces: Tensor) -> Tensor:
        """Convert faces that `shrink` returned to network input."""
        return self.normalize(self.center_crop(faces))

    def shrink(self, faces: Tensor) -> Tensor:
        """Reduce values from 0 to 1, (B, 1 or 3, H, W), to at most the network's channels and `zoom` times its size."""
        if faces.shape[1] == 3 and self.channels == 1:
            faces = (faces * faces.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        if max(faces.shape[-2:]) > self.zoomed_size:
            faces = interpolate(faces, (self.zoomed_size, self.zoomed_size), mode="bilinear", antialias=True)
        return faces

    def center_crop(self, faces: Tensor) -> Tensor:
        """Crop the center (B, C, size, size) of whole faces; a zoom of 1 leaves them unchanged."""
        if self.zoomed_size == self.size:
            return faces
        edge = round((self.zoomed_size - self.size) / 2)  # rounded as in torchvision
        return _resize(faces, self.zoomed_size)[..., edge : edge + self.size, edge : edge + self.size]

    def normalize(self, faces: Tensor) -> Tensor:
        """Bring values from 0 to 1 to the network's size, channels, mean and standard deviation."""
        faces = _resize(faces, self.size)
        return ((faces - self.mean) / self.std).expand(-1, self.channels, -1, -1)

    def denormalize(self, faces: Tensor) -> Tensor:
        """Bring network input back to values from 0 to 1, at the network's size and channels."""
        return faces * self.std + self.mean

    def after(self, other: "Preprocess") -> "Preprocess":
        """Return the same for faces of which `other` has cropped the center."""
        preprocess = copy.copy(self)
        preprocess.zoomed_size = max(self.size, round(self.zoomed_size * other.size / other.zoomed_size))
        return preprocess

    def maps_to_faces(self, maps: Tensor, height: int, width: int) -> Tensor:
        """Resize maps (B, size, size) over network input to the faces (B, 1 or 3, height, width) that it came from.

        Pixels outside the center crop, which the network does not see, are 0.
        """
        if self.zoomed_size > self.size:
            before = round((self.zoomed_size - self.size) / 2)
            after = self.zoomed_size - self.size - before
            maps = pad(maps, (before, after, before, after))
        if maps.shape[-2:] == (height, width):
            return maps
        return interpolate(maps[:, None], (height, width), mode="bilinear", antialias=True)[:, 0]


def to_float(pixels: Tensor) -> Tensor:
    """Convert uint8 faces (B, H, W) or (B, H, W, 3) to values from 0 to 1, (B, 1 or 3, H, W)."""
    faces = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return faces.float().div_(255)


def _resize(faces: Tensor, side: int) -> Tensor:
    if faces.shape[-2:] == (side, side):
        return faces
    planes = faces.flatten(0, 1)[None]  # one image with many planes: a third faster on a CPU
    return interpolate(planes, (side, side), mode="bilinear").view(*faces.shape[:2], side, side)
