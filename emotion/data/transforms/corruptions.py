"""Faces made worse on purpose, in five severities: Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261.

Noise, blur, brightness, contrast and JPEG have the strengths of their CIFAR-10-C, whose pictures of 32 pixels are
nearly of FER2013's size; ImageNet-C's are for 224. Ours differ in this: blur is a share of the side; brightness is
added to each channel, not to HSV's value; contrast keeps the mean of the picture, not of each channel; noise is drawn
from the row and the severity, so that every network sees the same. The two occlusions are ours; what theirs have
besides (weather, other noises and blurs) is left out.
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


def region_mask(region: str, height: int, width: int) -> Tensor:
    """Which pixels (height, width) lie in `region`."""
    top, left, bottom, right = REGIONS[region]
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    return mask


SEVERITIES = (1, 2, 3, 4, 5)
NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)  # standard deviation, of the whole range
BLUR = (0.4 / 32, 0.6 / 32, 0.7 / 32, 0.8 / 32, 1 / 32)  # standard deviation, of the side
BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)  # added, of the whole range
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)  # that is left
QUALITY = (80, 65, 58, 50, 40)  # of JPEG
WIDTH = (0.6, 0.8, 1.0, 1.2, 1.4)  # and height of what is covered, of the region's


def corrupted(images: NDArray[np.uint8], rows: NDArray[np.int64], corruption: str, severity: int) -> NDArray[np.uint8]:
    """The faces `images[rows]` of images (N, H, W) or (N, H, W, 3), made worse; severity is from 1 to 5."""
    faces = torch.from_numpy(images[rows])
    planes = faces.unsqueeze(1) if faces.ndim == 3 else faces.permute(0, 3, 1, 2)
    worse = CORRUPTIONS[corruption](planes.contiguous(), severity - 1, rows)
    return (worse.squeeze(1) if faces.ndim == 3 else worse.permute(0, 2, 3, 1)).numpy()


def gaussian_noise(faces: Tensor, level: int, rows: NDArray[np.int64]) -> Tensor:
    """Normal noise on each pixel and channel, drawn anew for each row and severity."""
    seeds = (int(row) * len(SEVERITIES) + level for row in rows)
    drawn = [torch.randn(faces.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return _grey_levels(faces + 255 * NOISE[level] * torch.stack(drawn))


def gaussian_blur(faces: Tensor, level: int, rows: NDArray[np.int64]) -> Tensor:
    """Blurred to three deviations, the borders mirrored."""
    deviation = BLUR[level] * min(faces.shape[-2:])
    width = 2 * math.ceil(3 * deviation) + 1
    blurred: Tensor = functional.gaussian_blur(faces, [width, width], [deviation, deviation])
    return blurred


def brightness(faces: Tensor, level: int, rows: NDArray[np.int64]) -> Tensor:
    """Brighter, white at most."""
    return _grey_levels(faces + 255 * BRIGHTNESS[level])


def contrast(faces: Tensor, level: int, rows: NDArray[np.int64]) -> Tensor:
    """Nearer to the picture's mean."""
    paler: Tensor = functional.adjust_contrast(faces, CONTRAST[level])
    return paler


def jpeg(faces: Tensor, level: int, rows: NDArray[np.int64]) -> Tensor:
    """Packed as JPEG and unpacked, by Pillow: torchvision is giving up its own."""
    unpacked = []
    for face in faces.permute(0, 2, 3, 1).numpy():
        packed = BytesIO()
        Image.fromarray(face.squeeze(-1) if face.shape[-1] == 1 else face).save(packed, "JPEG", quality=QUALITY[level])
        unpacked.append(np.asarray(Image.open(packed)).reshape(face.shape))
    return torch.from_numpy(np.stack(unpacked)).permute(0, 3, 1, 2)


def occlusion(faces: Tensor, level: int, rows: NDArray[np.int64], region: str) -> Tensor:
    """A part of the face covered by the picture's mean grey."""
    height, width = faces.shape[-2:]
    top, left, bottom, right = REGIONS[region]
    middle, half = ((top + bottom) / 2, (left + right) / 2), (WIDTH[level] / 2) * np.array([bottom - top, right - left])
    (first, last), (start, end) = (
        (max(0, round((at - reach) * side)), min(side, round((at + reach) * side)))
        for at, reach, side in zip(middle, half, (height, width), strict=True)
    )
    covered = faces.clone()
    covered[..., first:last, start:end] = _grey_levels(faces.float().mean((1, 2, 3), keepdim=True))
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
"""Of uint8 faces (B, C, H, W) by severity, counted from 0, and by row (B,)."""


def _grey_levels(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
