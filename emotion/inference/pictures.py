"""Pictures of any size and mode as upright RGB pixels."""

import math
import warnings
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from emotion.data.images import DAMAGE, FORMATS, flat
from emotion.errors import UserError
from emotion.inference.unpacking import BYTES, TooMuch, opened

Picture = NDArray[np.uint8]
"""(H, W, 3), RGB."""


class Upright(NamedTuple):
    """A picture as it is looked at.

    Attributes:
        pixels: (H, W, 3).
        factor: how many pixels of what was given are one of these across; more than 1 where it was shrunk.
    """

    pixels: Picture
    factor: float = 1.0


LONGEST, LARGEST = 4096, 4096 * 3072  # pixels; a larger picture is shrunk to that: no face in it loses by it
MOST = 178_956_970  # pixels: what Pillow opens at all, 12,000 x 14,900
HELD = BYTES + 25_000_000  # of a file, of its pixels, and of these as RGB
STRIP = 1 << 18  # pixels that are made RGB at once
ORIENTATION = 0x0112  # of EXIF


def read_picture(source: Path | bytes, name: str = "", most: int = MOST) -> Upright:
    """A PNG, JPEG, WEBP or BMP file or its bytes: turned as its EXIF data say, on white, at most `LONGEST` a side.

    Raises:
        UserError: it is none, is damaged, has more than `most` pixels or otherwise takes too much to unpack, which is
            seen before any is unpacked.
    """
    name = name or str(source if isinstance(source, Path) else "the picture")
    try:
        with warnings.catch_warnings(action="ignore"), opened(source, most, LONGEST) as (image, longer, taken):
            return upright(image, longer, taken)
    except TooMuch as error:
        raise UserError(f"{name} is {error}") from error
    except Image.DecompressionBombError as error:
        found = str(error).split(",")[0]
        raise UserError(f"{name} is too large ({found}); expected at most {most / 1e6:.0f} million pixels.") from error
    except DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        reason = "it is something else" if isinstance(error, UnidentifiedImageError) else reason
        expected = f"expected a picture: {', '.join(FORMATS)}"
        raise UserError(f"{name} cannot be read ({reason}); {expected}. Is it whole?") from error


def upright(image: Image.Image, longer: int, taken: int = 0) -> Upright:
    """An opened picture's pixels; it is closed, having taken so many bytes until then.

    `longer` is its longer side before anything was shrunk.
    """
    image.load()
    turned = image.getexif().get(ORIENTATION)
    pixels = _rgb(image, taken)
    image.close()
    if (shrink := _shrink(pixels.shape[1], pixels.shape[0])) > 1:
        size = max(1, round(pixels.shape[1] / shrink)), max(1, round(pixels.shape[0] / shrink))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    if turned in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    down, across = -1 if turned in (3, 4, 7, 8) else 1, -1 if turned in (2, 3, 6, 7) else 1
    return Upright(np.ascontiguousarray(pixels[::down, ::across]), longer / max(pixels.shape[:2]))


def _rgb(image: Image.Image, taken: int) -> Picture:
    """Strip by strip, at 1/1, 1/2, 1/3 of its size and so on, of these the least that is no smaller than asked for."""
    width, height = image.size
    step = int(max(1, _shrink(width, height)))
    while taken + 3 * width * height / step**2 > HELD:
        step += 1
    pixels = np.empty((-(-height // step), -(-width // step), 3), np.uint8)
    lines = max(1, STRIP // (width * step))  # of these
    for top in range(0, len(pixels), lines):
        strip = image.crop((0, top * step, width, min((top + lines) * step, height)))
        pixels[top : top + lines] = np.asarray(flat(strip, "RGB").reduce(step))
    return pixels


def _shrink(width: int, height: int) -> float:
    return max(max(width, height) / LONGEST, math.sqrt(width * height / LARGEST))


def as_picture(value: object) -> Upright:
    """A picture in whatever form a program has it: a path, bytes of a file, a Pillow image, or an array.

    An array is uint8, grey (H, W) or (H, W, 1), or RGB (H, W, 3).

    Raises:
        UserError: it is none of these.
    """
    if isinstance(value, str | Path):
        if not Path(value).is_file():
            raise UserError(f"{value} is not there; expected a picture file.")
        return read_picture(Path(value))
    if isinstance(value, bytes | bytearray):
        return read_picture(bytes(value))
    if isinstance(value, Image.Image):
        return upright(value.copy(), max(value.size))
    pixels = np.asarray(value)
    grey = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1)
    if pixels.dtype != np.uint8 or not pixels.size or not (grey or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise UserError(
            f"A picture of type {type(value).__name__}, {pixels.dtype} {pixels.shape}: expected a path, the bytes of a "
            f"file, a Pillow image, or an array of uint8, (H, W) grey or (H, W, 3) RGB."
        )
    return Upright(np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2) if grey else pixels)
