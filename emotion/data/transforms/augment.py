"""Random augmentation of training batches (B, C, S, S) with values from 0 to 1, on the batch's device.

Each face gets its own random parameters. The transforms here take a few tensor operations per batch and never
synchronize with the device: in batches of 32 they are two to four times as fast as kornia's. conf/augment may also name
transforms of kornia, or of torchvision's v2 (which share their parameters within a batch). All sample from torch's
global generator, which the data module seeds for every batch.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, pad

from emotion.config.instantiate import instantiate

Config = Mapping[str, Any]

# fmt: off
LUMINANCE_TABLE = (
    16., 11., 10., 16., 24., 40., 51., 61.,
    12., 12., 14., 19., 26., 58., 60., 55.,
    14., 13., 16., 24., 40., 57., 69., 56.,
    14., 17., 22., 29., 51., 87., 80., 62.,
    18., 22., 37., 56., 68., 109., 103., 77.,
    24., 35., 55., 64., 81., 104., 113., 92.,
    49., 64., 78., 87., 103., 121., 120., 101.,
    72., 92., 95., 98., 112., 100., 103., 99.,
)
# fmt: on
"""JPEG's quantization steps of luminance at quality 50, by vertical and horizontal frequency."""


def build_augmentation(transforms: Mapping[str, Config]) -> nn.Sequential:
    """Return the transforms of a config of conf/augment in order."""
    return nn.Sequential(*(instantiate(config) for config in transforms.values()))


class Flip(nn.Module):
    """Mirror each face with probability p."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, faces: Tensor) -> Tensor:
        """(B, C, S, S) to (B, C, S, S)."""
        return torch.where(_uniform(faces, 0, 1) < self.p, faces.flip(-1), faces)


class Affine(nn.Module):
    """Rotate by up to `degrees`, shift by up to `translate` of the side, zoom by a factor from [1 - zoom, 1 + zoom].

    Bilinear, with black outside the face.
    """

    def __init__(self, degrees: float = 0.0, translate: float = 0.0, zoom: float = 0.0) -> None:
        super().__init__()
        self.degrees, self.translate, self.zoom = degrees, translate, zoom

    def forward(self, faces: Tensor) -> Tensor:
        """(B, C, S, S) to (B, C, S, S)."""
        radians, shift = math.radians(self.degrees), 2 * self.translate  # grid coordinates: the side is 2 long
        angle, zoom, right, down = (
            _uniform(faces, low, high).view(-1, 1, 1)
            for low, high in ((-radians, radians), (1 - self.zoom, 1 + self.zoom), (-shift, shift), (-shift, shift))
        )
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        x, y = _grid_axes(faces)
        grid = torch.stack([cos * x + sin * y + right, cos * y - sin * x + down], -1)  # a third of affine_grid's time
        return grid_sample(faces, grid, align_corners=False)


class ResizedCrop(nn.Module):
    """Crop a rectangle with an area from `scale` and an aspect ratio from `ratio`, and resize it to the full side.

    Like torchvision's RandomResizedCrop, except that a side longer than the face is clamped, not sampled again.
    """

    def __init__(self, scale: tuple[float, float] = (0.75, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> None:
        super().__init__()
        self.scale, self.ratio = scale, ratio

    def forward(self, faces: Tensor) -> Tensor:
        """(B, C, S, S) to (B, C, S, S)."""
        area = _uniform(faces, *self.scale).view(-1, 1, 1)
        ratio = _uniform(faces, math.log(self.ratio[0]), math.log(self.ratio[1])).exp().view(-1, 1, 1)
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        right, down = (_uniform(faces, -1, 1).view(-1, 1, 1) * (1 - extent) for extent in (width, height))
        side = faces.shape[-1]
        x, y = _grid_axes(faces)
        grid = torch.stack([(x * width + right).expand(-1, side, -1), (y * height + down).expand(-1, -1, side)], -1)
        return grid_sample(faces, grid, align_corners=False)


class Crop(nn.Module):
    """Crop the center `size` x `size` pixels; smaller faces are unchanged.

    After a random shift this is a random crop without interpolation. With `size` equal to `input.size`, training sees
    the scale that `input.zoom` crops for evaluation.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, faces: Tensor) -> Tensor:
        """(B, C, S, S) to (B, C, size, size)."""
        edge = max(0, (faces.shape[-1] - self.size) // 2)
        return faces[..., edge : edge + self.size, edge : edge + self.size]


class ColorJitter(nn.Module):
    """Change brightness, contrast and saturation, in this order, each by a factor from [1 - x, 1 + x].

    Computed as in torchvision. The saturation of gray faces does not change.
    """

    def __init__(self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0) -> None:
        super().__init__()
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation

    def forward(self, faces: Tensor) -> Tensor:
        """(B, C, S, S) to (B, C, S, S)."""
        faces = (faces * self._factor(faces, self.brightness)).clamp_(0, 1)
        mean = faces.mean((1, 2, 3), keepdim=True)
        faces = mean.lerp(faces, self._factor(faces, self.contrast)).clamp_(0, 1)
        if faces.shape[1] == 3 and self.saturation:
            faces = faces.mean(1, keepdim=True).lerp(faces, self._factor(faces, self.saturation)).clamp_(0, 1)
        return faces

    def _factor(self, faces: Tensor, spread: float) -> Tensor:
        return _uniform(faces, 1 - spread, 1 + spread)


class Blur(nn.Module):
    """Blur each face with probability p by a Gaussian of 3x3 pixels with a standard deviation from `sigma` pixels."""

    def __init__(self, p: float = 0.1, sigma: tuple[float, float] = (0.1, 2.0)) -> None:
        super().__init__()
        self.p, self.sigma = p, sigma

    def forward(self, faces: Tensor) -> Tensor:
        """(B, C, S, S) to (B, C, S, S); faces that are not blurred stay bit-equal."""
        neighbor = (-0.5 / _uniform(faces, *self.sigma) ** 2).exp()  # relative to a center of 1
        neighbor = torch.where(_uniform(faces, 0, 1) < self.p, neighbor / (1 + 2 * neighbor), 0)
        center = 1 - 2 * neighbor
        wide = pad(faces, (1, 1, 0, 0), mode="reflect")
        faces = center * faces + neighbor * (wide[..., :-2] + wide[..., 2:])
        tall = pad(faces, (0, 0, 1, 1), mode="reflect")
        return center * faces + neighbor * (tall[..., :-2, :] + tall[..., 2:, :])


class Noise(nn.Module):
    """Add normal noise with a standard deviation from `deviation` to each face with probability p."""

    def __init__(self, p: float = 0.1, deviation: tuple[float, float] = (0.0, 0.1)) -> None:
        super().__init__()
        self.p, self.deviation = p, deviation

    def forward(self, faces: Tensor) -> Tensor:
        """(B, C, S, S) to (B, C, S, S)."""
        deviation = torch.where(_uniform(faces, 0, 1) < self.p, _uniform(faces, *self.deviation), 0)
        return (faces + deviation * torch.randn_like(faces)).clamp_(0, 1)


class Compression(nn.Module):
    """Quantize each face with probability p as JPEG does, with a quality from `quality` (1 to 100).

    Every channel is quantized with the luminance table of the standard's annex K: ITU-T T.81, scaled as in libjpeg.
    """

    table: Tensor
    cosines: Tensor

    def __init__(self, p: float = 0.1, quality: tuple[float, float] = (20.0, 90.0)) -> None:
        super().__init__()
        self.p, self.quality = p, quality
        step, frequency = torch.arange(8.0), torch.arange(8.0)[:, None]
        cosines = ((2 * step + 1) * frequency * math.pi / 16).cos() / 2
        cosines[0] /= math.sqrt(2)  # orthonormal
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("table", torch.tensor(LUMINANCE_TABLE).view(8, 8), persistent=False)

    def forward(self, faces: Tensor) -> Tensor:
        """(B, C, S, S) to (B, C, S, S); faces that are not compressed stay bit-equal."""
        side, channels = faces.shape[-1], faces.shape[1]
        blocks = -(-side // 8)
        edge = 8 * blocks - side
        padded = pad(faces, (0, edge, 0, edge), mode="replicate") * 255 - 128
        tiles = padded.view(len(faces), channels, blocks, 8, blocks, 8).transpose(3, 4)
        quality = _uniform(faces, *self.quality).view(-1, 1, 1, 1, 1, 1)
        scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
        steps = (self.table * scale).round().clamp(1, 255)
        coefficients = ((self.cosines @ tiles @ self.cosines.T) / steps).round() * steps
        decoded = (self.cosines.T @ coefficients @ self.cosines).transpose(3, 4).reshape(padded.shape)
        decoded = ((decoded[..., :side, :side] + 128) / 255).clamp(0, 1)
        return torch.where(_uniform(faces, 0, 1) < self.p, decoded, faces)


class Erasing(nn.Module):
    """Fill a rectangle with `value` with probability p: Zhong et al. 2020, https://arxiv.org/abs/1708.04896.

    Its share of the area is from `scale`, its height over its width from `ratio`.
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
        """(B, C, S, S) to (B, C, S, S)."""
        area = _uniform(faces, *self.scale)
        ratio = _uniform(faces, math.log(self.ratio[0]), math.log(self.ratio[1])).exp()
        height, width = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        top, left = _uniform(faces, 0, 1) * (1 - height), _uniform(faces, 0, 1) * (1 - width)
        top = torch.where(_uniform(faces, 0, 1) < self.p, top, 2)  # 2: below the face
        position = (torch.arange(faces.shape[-1], device=faces.device) + 0.5) / faces.shape[-1]
        y, x = position[:, None], position[None, :]
        inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
        return torch.where(inside, self.value, faces)


def _uniform(faces: Tensor, low: float, high: float) -> Tensor:
    """Sample one number per face, (B, 1, 1, 1)."""
    return torch.empty(len(faces), 1, 1, 1, device=faces.device).uniform_(low, high)


def _grid_axes(faces: Tensor) -> tuple[Tensor, Tensor]:
    """Return grid_sample's coordinates of the pixel centers, x (1, 1, S) and y (1, S, 1)."""
    side = faces.shape[-1]
    centers = (torch.arange(side, device=faces.device) * 2 + 1) / side - 1
    return centers[None, None, :], centers[None, :, None]
