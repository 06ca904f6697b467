"""Pictures with drawn faces in them that the detector finds."""

from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion.data.readers.synthetic import render_faces

FACES = render_faces(np.repeat(np.arange(7), 10).astype(np.uint8), np.random.default_rng(0))[[31, 0, 42, 13, 51, 27]]
"""Drawn faces (6, 48, 48) that are found: happy, angry, sad, disgust, surprise, fear."""


def scene(*places: tuple[int, int, int], width: int = 640, height: int = 480) -> NDArray[np.uint8]:
    """A grey wall (height, width, 3) with a drawn face at each (left, top, side); without places an empty one."""
    picture = np.full((height, width, 3), 128, np.uint8)
    for face, (left, top, side) in zip(FACES, places, strict=False):
        enlarged = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
        picture[top : top + side, left : left + side] = enlarged[..., None]
    return picture


def encode_image(picture: NDArray[np.uint8] | Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    """As a file of one of Pillow's formats."""
    file = BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, kind, **settings)
    return file.getvalue()
