"""Random changes to a batch of training faces (B, C, S, S) from 0 to 1, each face its own, on the batch's device.

These four take a few tensor operations a batch whatever is drawn, and never wait for the device. In batches of 32 they
are two to four times as fast as kornia's, which conf/augment may name as well, as it may torchvision's v2 (whose
parts share one draw a batch). All draw from torch's global generator, which the data module seeds for every batch.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, pad

from emotion.config.instantiate import build

Config = Mapping[str, Any]


def augmentation(parts: Mapping[str, Config]) -> nn.Sequential:
    """The parts of conf/augment in their order; a part that was taken away (`~augment.blur`) is not there."""
    return nn.Sequential(*(build(part) for part in parts.values()))


def _between(faces: Tensor, low: float, high: float) -> Tensor:
    """A number for each face, (B, 1, 1, 1)."""
    return torch.empty(len(faces), 1, 1, 1, device=faces.device).uniform_(low, high)


class Flip(nn.Module):
    """Mirrors a face with probability p."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, faces: Tensor) -> Tensor:
        """(B, C, S, S) to the same."""
        return torch.where(_between(faces, 0, 1) < self.p, faces.flip(-1), faces)


class Affine(nn.Module):
    """Turns by up to `degrees`, shifts by up to `translate` of the side, zooms by a factor from [1 - x, 1 + x].

    Bilinear; black where the face does not reach.
    """

    def __init__(self, degrees: float = 0.0, translate: float = 0.0, zoom: float = 0.0) -> None:
        super().__init__()
        self.degrees, self.translate, self.zoom = degrees, translate, zoom

    def forward(self, faces: Tensor) -> Tensor:
        """(B, C, S, S) to the same."""
        radians, shift = math.radians(self.degrees), 2 * self.translate  # a side is 2 long, from -1 to 1
        angle, zoom, right, down = (
            _between(faces, low, high).view(-1, 1, 1)
            for low, high in ((-radians, radians), (1 - self.zoom, 1 + self.zoom), (-shift, shift), (-shift, shift))
        )
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        side = faces.shape[-1]
        place = (torch.arange(side, device=faces.device) * 2 + 1) / side - 1
        x, y = place[None, None, :], place[None, :, None]
        grid = torch.stack(
            [cos * x + sin * y + right, cos * y - sin * x + down], -1
        )  # affine_grid is three times as slow
        return grid_sample(faces, grid, align_corners=False)


class ResizedCrop(nn.Module):
    """Cuts out a part whose area is from `scale` of the face's, its width over its height from `ratio`, enlarged again.

    As torchvision's RandomResizedCrop, but that a side longer than the face's is cut short instead of drawn again.
    """

    def __init__(self, scale: tuple[float, float] = (0.75, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> None:
        super().__init__()
        self.scale, self.ratio = scale, ratio

    def forward(self, faces: Tensor) -> Tensor:
        """(B, C, S, S) to the same."""
        area = _between(faces, *self.scale).view(-1, 1, 1)
        ratio = _between(faces, math.log(self.ratio[0]), math.log(self.ratio[1])).exp().view(-1, 1, 1)
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        right, down = (_between(faces, -1, 1).view(-1, 1, 1) * (1 - side) for side in (width, height))
        side = faces.shape[-1]
        place = (torch.arange(side, device=faces.device) * 2 + 1) / side - 1
        x, y = place[None, None, :] * width + right, place[None, :, None] * height + down
        return grid_sample(
            faces, torch.stack([x.expand(-1, side, -1), y.expand(-1, -1, side)], -1), align_corners=False
        )


class Crop(nn.Module):
    """Leaves the middle `size` x `size` pixels; after a shift, a random crop at no loss of sharpness.

    With `input.size` as large, training sees what `input.zoom` cuts out for evaluation. Smaller faces stay as they are.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, faces: Tensor) -> Tensor:
        """(B, C, S, S) to (B, C, size, size)."""
        edge = max(0, (faces.shape[-1] - self.size) // 2)
        return faces[..., edge : edge + self.size, edge : edge + self.size]


class ColorJitter(nn.Module):
    """Brightness, contrast, saturation, each by a factor from [1 - x, 1 + x]; torchvision's arithmetic, in this order.

    Grey faces are taken too; their saturation cannot change.
    """

    def __init__(self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0) -> None:
        super().__init__()
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation

    def forward(self, faces: Tensor) -> Tensor:
        """(B, C, S, S) to the same."""
        faces = (faces * self._factor(faces, self.brightness)).clamp_(0, 1)
        mean = faces.mean((1, 2, 3), keepdim=True)
        faces = mean.lerp(faces, self._factor(faces, self.contrast)).clamp_(0, 1)
        if faces.shape[1] == 3 and self.saturation:
            faces = faces.mean(1, keepdim=True).lerp(faces, self._factor(faces, self.saturation)).clamp_(0, 1)
        return faces

    def _factor(self, faces: Tensor, spread: float) -> Tensor:
        return _between(faces, 1 - spread, 1 + spread)


class Blur(nn.Module):
    """Gaussian blur of 3x3 pixels with probability p, its deviation from `sigma` pixels."""

    def __init__(self, p: float = 0.1, sigma: tuple[float, float] = (0.1, 2.0)) -> None:
        super().__init__()
        self.p, self.sigma = p, sigma

    def forward(self, faces: Tensor) -> Tensor:
        """(B, C, S, S) to the same; a face that is not chosen comes out bit-equal."""
        neighbour = (-0.5 / _between(faces, *self.sigma) ** 2).exp()  # beside a centre of 1
        neighbour = torch.where(_between(faces, 0, 1) < self.p, neighbour / (1 + 2 * neighbour), 0)
        centre = 1 - 2 * neighbour
        wide = pad(faces, (1, 1, 0, 0), mode="reflect")
        faces = centre * faces + neighbour * (wide[..., :-2] + wide[..., 2:])
        tall = pad(faces, (0, 0, 1, 1), mode="reflect")
        return centre * faces + neighbour * (tall[..., :-2, :] + tall[..., 2:, :])


class Erasing(nn.Module):
    """Covers a rectangle with `value` with probability p: Zhong et al. 2020, https://arxiv.org/abs/1708.04896.

    Its area is from `scale` of the face's, its height over its width from `ratio`.
    """

    def __init__(
        self,
        p: float = 0.1,
        scale: tuple[float, float] = (0.02, 0.1),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: float = 0.5,
    ) -> None:
        super().__init__()
        self.p, self.scale, self.ratio, self.value = p, scale, ratio, value

    def forward(self, faces: Tensor) -> Tensor:
        """(B, C, S, S) to the same."""
        area = _between(faces, *self.scale)
        ratio = _between(faces, math.log(self.ratio[0]), math.log(self.ratio[1])).exp()
        height, width = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        top, left = _between(faces, 0, 1) * (1 - height), _between(faces, 0, 1) * (1 - width)
        top = torch.where(_between(faces, 0, 1) < self.p, top, 2)  # below the face
        place = (torch.arange(faces.shape[-1], device=faces.device) + 0.5) / faces.shape[-1]
        down, across = place[:, None], place[None, :]
        inside = (down >= top) & (down < top + height) & (across >= left) & (across < left + width)
        return torch.where(inside, self.value, faces)
