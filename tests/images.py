"""Images with drawn faces that the detector finds."""

from collections.abc import Sequence
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion.data.readers.synthetic import render_faces

FACES = render_faces(np.repeat(np.arange(7), 10).astype(np.uint8), np.random.default_rng(0))[[31, 0, 42, 13, 51, 27]]
"""Drawn faces (6, 48, 48): happy, angry, sad, disgust, surprise, fear."""


def scene(*places: tuple[int, int, int], width: int = 640, height: int = 480) -> NDArray[np.uint8]:
    """A gray image (height, width, 3) with a drawn face at each (left, top, side)."""
    image = np.full((height, width, 3), 128, np.uint8)
    for face, (left, top, side) in zip(FACES, places, strict=False):
        enlarged = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
        image[top : top + side, left : left + side] = enlarged[..., None]
    return image


def encode_animation(images: Sequence[NDArray[np.uint8]], image_format: str = "GIF", fps: float = 10) -> bytes:
    """Encode frames (H, W, 3), which must differ, with Pillow."""
    first, *others = map(Image.fromarray, images)
    settings = {} if image_format in ("TIFF", "MPO") else {"duration": round(1000 / fps)}
    return encode_image(first, image_format, save_all=True, append_images=others, **settings)


def encode_image(image: NDArray[np.uint8] | Image.Image, image_format: str = "PNG", **settings: object) -> bytes:
    """Encode an image with Pillow."""
    file = BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, image_format, **settings)
    return file.getvalue()
