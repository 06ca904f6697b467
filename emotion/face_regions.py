"""Where the parts of a face lie in FER2013's crops, as (top, left, bottom, right) in shares of the side.

Measured on 2,500 Training faces: OpenCV's eye detector finds two eyes in 1,347 of them, whose centres have medians
(0.30, 0.38) and (0.68, 0.38) across and down, nine in ten within 0.12 of that, at a width of 0.23; its smile detector
finds 1,525 mouths around (0.50, 0.79), 0.44 by 0.22. Brows and nose are what lies above and between, checked on the
mean faces of the classes. The boxes stand still: a turned or ill-cropped face has its parts elsewhere.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

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
