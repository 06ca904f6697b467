"""Corruptions of faces in five severities: Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261.

Noise, blur, brightness, contrast and JPEG have the strengths of CIFAR-10-C, whose 32-pixel images are close to
FER2013's in size. Differences: blur is relative to the side; brightness is added to each channel, not to HSV's value;
contrast keeps the mean of the image, not of each channel; noise is sampled from row and severity, so that it is the
same for every network. The two occlusions are our own. The other corruptions (weather, further noises and blurs) are
not included.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

REGIONS: Mapping[str, tuple[float, float, float, float]] = {
    "brows": (0.18, 0.15, 0.30, 0.84),
    "eyes": (0.30, 0.15, 0.46, 0.84),
    "nose": (0.46, 0.35, 0.67, 0.65),
    "mouth": (0.67, 0.26, 0.91, 0.74),
}
"""Top, left, bottom, right of facial regions in aligned faces, as shares of the side."""

SEVERITIES = (1, 2, 3, 4, 5)
NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)  # standard deviation relative to the value range
BLUR = (0.4 / 32, 0.6 / 32, 0.7 / 32, 0.8 / 32, 1 / 32)  # standard deviation relative to the side
BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)  # offset relative to the value range
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)  # factor
QUALITY = (80, 65, 58, 50, 40)  # of JPEG
OCCLUSION = (0.6, 0.8, 1.0, 1.2, 1.4)  # side lengths relative to the region's


def region_mask(region: str, height: int, width: int) -> Tensor:
    """Return the mask (height, width) of a facial region."""
    top, left, bottom, right = REGIONS[region]
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    return mask


def corrupt(images: NDArray[np.uint8], rows: NDArray[np.int64], corruption: str, severity: int) -> NDArray[np.uint8]:
    """Return corrupted copies of `images[rows]`; images are (N, H, W) or (N, H, W, 3), severity is 1 to 5."""
    faces = torch.from_numpy(images[rows])
    planes = faces.unsqueeze(1) if faces.ndim == 3 else faces.permute(0, 3, 1, 2)
    corrupted = CORRUPTIONS[corruption](planes.contiguous(), severity - 1, rows)
    return (corrupted.squeeze(1) if faces.ndim == 3 else corrupted.permute(0, 2, 3, 1)).numpy()


def gaussian_noise(faces: Tensor, level: int, rows: NDArray[np.int64]) -> Tensor:
    """Add normal noise to each pixel and channel, seeded by row and severity."""
    seeds = (int(row) * len(SEVERITIES) + level for row in rows)
    noise = [torch.randn(faces.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return _to_uint8(faces + 255 * NOISE[level] * torch.stack(noise))


def gaussian_blur(faces: Tensor, level: int, rows: NDArray[np.int64]) -> Tensor:
    """Blur with a kernel of three standard deviations and reflected borders."""
    deviation = BLUR[level] * min(faces.shape[-2:])
    width = 2 * math.ceil(3 * deviation) + 1
    blurred: Tensor = functional.gaussian_blur(faces, [width, width], [deviation, deviation])
    return blurred


def brightness(faces: Tensor, level: int, rows: NDArray[np.int64]) -> Tensor:
    """Add a constant."""
    return _to_uint8(faces + 255 * BRIGHTNESS[level])


def contrast(faces: Tensor, level: int, rows: NDArray[np.int64]) -> Tensor:
    """Move the pixels towards the image's mean."""
    result: Tensor = functional.adjust_contrast(faces, CONTRAST[level])
    return result


def jpeg(faces: Tensor, level: int, rows: NDArray[np.int64]) -> Tensor:
    """Encode and decode as JPEG with Pillow (torchvision's JPEG transform is deprecated)."""
    decoded = []
    for face in faces.permute(0, 2, 3, 1).numpy():
        file = BytesIO()
        Image.fromarray(face.squeeze(-1) if face.shape[-1] == 1 else face).save(file, "JPEG", quality=QUALITY[level])
        decoded.append(np.asarray(Image.open(file)).reshape(face.shape))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2)


def occlusion(faces: Tensor, level: int, rows: NDArray[np.int64], region: str) -> Tensor:
    """Cover a region of the face with the image's mean gray."""
    height, width = faces.shape[-2:]
    top, left, bottom, right = REGIONS[region]
    center = (top + bottom) / 2, (left + right) / 2
    half = (OCCLUSION[level] / 2) * np.array([bottom - top, right - left])
    (first, last), (start, end) = (
        (max(0, round((middle - extent) * side)), min(side, round((middle + extent) * side)))
        for middle, extent, side in zip(center, half, (height, width), strict=True)
    )
    covered = faces.clone()
    covered[..., first:last, start:end] = _to_uint8(faces.float().mean((1, 2, 3), keepdim=True))
    return covered


CORRUPTIONS: dict[str, Callable[[Tensor, int, NDArray[np.int64]], Tensor]] = {
    "gaussian_noise": gaussian_noise,
    "gaussian_blur": gaussian_blur,
    "brightness": brightness,
    "contrast": contrast,
    "jpeg": jpeg,
    "eyes_covered": partial(occlusion, region="eyes"),
    "mouth_covered": partial(occlusion, region="mouth"),
}
"""Functions of uint8 faces (B, C, H, W), the severity counted from 0, and the row numbers (B,)."""


def _to_uint8(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
