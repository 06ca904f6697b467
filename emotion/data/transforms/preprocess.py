"""From stored pixels to what a network takes: size, channels and scale, the same in training, evaluation and use."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from emotion.errors import UserError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's convert("L")


class Preprocess(nn.Module):
    """uint8 faces (B, H, W) or (B, H, W, 3) to float (B, channels, size, size), on the device that they are on.

    In two halves, between which random augmentation stands: `unpack` shrinks, `finish` enlarges and adds channels, so
    that what stands between them works on as few numbers as there are. Without augmentation, the middle of a face
    `zoom` times as large is taken: 1.14 is the resize to 255 and centre crop to 224 of ImageNet evaluation.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, size: int, channels: int, mean: Sequence[float], std: Sequence[float], zoom: float = 1.0
    ) -> None:
        super().__init__()
        if channels not in (1, 3) or len(mean) not in (1, channels) or len(std) not in (1, channels):
            raise UserError(f"input: {channels} channels, mean {mean}, std {std}; expected 1 or 3 channels, one each.")
        if zoom < 1:
            raise UserError(f"input: zoom {zoom}; expected 1 (the whole face) or more (its middle).")
        self.size, self.channels, self.zoomed = size, channels, round(size * zoom)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def unpack(self, pixels: Tensor) -> Tensor:
        """uint8 pixels to values from 0 to 1, (B, 1 or 3, S, S) with S at most `zoom` times the network's size."""
        return self.reduce(values(pixels))

    def reduce(self, faces: Tensor) -> Tensor:
        """Values from 0 to 1, (B, 1 or 3, H, W), to no more channels and pixels than the network takes."""
        if faces.shape[1] == 3 and self.channels == 1:
            faces = (faces * faces.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        if max(faces.shape[-2:]) > self.zoomed:
            faces = interpolate(faces, (self.zoomed, self.zoomed), mode="bilinear", antialias=True)
        return faces

    def centre(self, faces: Tensor) -> Tensor:
        """The middle of faces that are not augmented, (B, C, size, size); with a zoom of 1 the faces as they are."""
        if self.zoomed == self.size:
            return faces
        edge = round((self.zoomed - self.size) / 2)  # as torchvision rounds it
        return _resized(faces, self.zoomed)[..., edge : edge + self.size, edge : edge + self.size]

    def finish(self, faces: Tensor) -> Tensor:
        """Values from 0 to 1 to the network's size, channels, mean and deviation."""
        faces = _resized(faces, self.size)
        return ((faces - self.mean) / self.std).expand(-1, self.channels, -1, -1)

    def undo(self, faces: Tensor) -> Tensor:
        """What `finish` made to values from 0 to 1 again; their size and their channels stay."""
        return faces * self.std + self.mean

    def take(self, faces: Tensor) -> Tensor:
        """Values from 0 to 1, (B, 1 or 3, H, W), to what the network takes, (B, channels, size, size)."""
        return self.finish(self.centre(self.reduce(faces)))

    def forward(self, pixels: Tensor) -> Tensor:
        """`unpack`, `centre`, `finish`."""
        return self.take(values(pixels))

    def lay_back(self, maps: Tensor, height: int, width: int) -> Tensor:
        """Maps (B, size, size) of what the network took, over the faces of (B, 1 or 3, height, width) it came from.

        What `centre` cut off, the network has not seen: there they are 0.
        """
        if self.zoomed > self.size:
            before = round((self.zoomed - self.size) / 2)
            after = self.zoomed - self.size - before
            maps = pad(maps, (before, after, before, after))
        if maps.shape[-2:] == (height, width):
            return maps
        return interpolate(maps[:, None], (height, width), mode="bilinear", antialias=True)[:, 0]


def values(pixels: Tensor) -> Tensor:
    """uint8 faces (B, H, W) or (B, H, W, 3) to values from 0 to 1, (B, 1 or 3, H, W)."""
    faces = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return faces.float().div_(255)


def _resized(faces: Tensor, side: int) -> Tensor:
    if faces.shape[-2:] == (side, side):
        return faces
    planes = faces.flatten(0, 1)[None]  # one image of many planes: a third faster on a processor
    return interpolate(planes, (side, side), mode="bilinear").view(*faces.shape[:2], side, side)
