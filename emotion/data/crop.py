"""Squares of an image that contain a face, and the faces cropped from them."""

import math
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

RGBImage = NDArray[np.uint8]
"""(H, W, 3)."""


class Box(NamedTuple):
    """A square in pixels of an image, which may extend beyond its edges, and the detector's score.

    A face turned clockwise by `angle` degrees is cropped upright, from the square turned about its center.
    """

    left: float
    top: float
    side: float
    score: float
    angle: float = 0.0

    def __repr__(self) -> str:
        return f"Box({', '.join(f'{name}={round(value, 2):g}' for name, value in self._asdict().items())})"

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        return self.left, self.top, self.left + self.side, self.top + self.side

    @property
    def xywh(self) -> list[float]:
        """Left, top, width and height, rounded, for JSON."""
        return [round(float(value), 1) for value in (self.left, self.top, self.side, self.side)]

    def scaled(self, factor: float) -> "Box":
        """Return the box in pixels of the image enlarged by `factor`."""
        return self._replace(left=self.left * factor, top=self.top * factor, side=self.side * factor)


class Detector(Protocol):
    """A face detector; used by one thread at a time, unless `Predictor.is_concurrent` names it."""

    def __call__(self, image: RGBImage) -> list[Box]:
        """Return the faces of an image (H, W, 3), the largest first."""


def crop(image: RGBImage, box: Box, side: int, channels: int) -> NDArray[np.uint8]:
    """Crop a face as the network takes it: (side, side) gray, or (side, side, 3) RGB.

    Pixels beyond the image's edge replicate the edge.
    """
    if box.angle:
        return _crop_turned(image, box, side, channels)
    left, top = round(box.left), round(box.top)
    right, bottom = left + max(1, round(box.side)), top + max(1, round(box.side))
    height, width = image.shape[:2]
    face: MatLike = image[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    margins = (max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width))
    if any(margins):
        face = cv2.copyMakeBorder(face, *margins, cv2.BORDER_REPLICATE)
    if channels == 1:
        face = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    interpolation = cv2.INTER_AREA if face.shape[0] > side else cv2.INTER_LINEAR
    return np.ascontiguousarray(cv2.resize(face, (side, side), interpolation=interpolation), np.uint8)


def _crop_turned(image: RGBImage, box: Box, side: int, channels: int) -> NDArray[np.uint8]:
    """Turn the image about the box's center until the face is upright, then crop."""
    size = max(1, round(box.side))
    cos, sin = math.cos(math.radians(box.angle)), math.sin(math.radians(box.angle))
    rotation = np.array([[cos, -sin], [sin, cos]])
    half = (box.side - 1) / 2  # OpenCV counts from pixel centers
    center = np.round([box.left + half, box.top + half], 3)  # as in worker.js
    matrix = np.column_stack([rotation, center - rotation @ np.full(2, (size - 1) / 2)])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    upright = cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return crop(np.asarray(upright, np.uint8), Box(0, 0, size, box.score), side, channels)
