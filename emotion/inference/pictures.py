"""Pictures of any size and mode as upright RGB pixels."""

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from emotion.data.images import DAMAGE, FORMATS, flat
from emotion.errors import UserError

Picture = NDArray[np.uint8]
"""(H, W, 3), RGB."""

LONGEST = 4096  # pixels; a larger picture is shrunk to that: no face in it loses by it
MOST = 178_956_970  # pixels: what Pillow opens at all, 12,000 x 14,900


def read_picture(source: Path | bytes, name: str = "", most: int = MOST) -> Picture:
    """A PNG, JPEG, WEBP or BMP file or its bytes: turned as its EXIF data say, on white, at most `LONGEST` a side.

    Raises:
        UserError: it is none, is damaged, or has more than `most` pixels, which is seen before any is unpacked.
    """
    name = name or str(source if isinstance(source, Path) else "the picture")
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            if image.width * image.height > most:
                raise UserError(_too_large(name, f"{image.width} x {image.height} pixels", most))
            return upright(image)
    except Image.DecompressionBombError as error:
        raise UserError(_too_large(name, str(error).split(",")[0], most)) from error
    except DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        reason = "it is something else" if isinstance(error, UnidentifiedImageError) else reason
        expected = f"expected a picture: {', '.join(FORMATS)}"
        raise UserError(f"{name} cannot be read ({reason}); {expected}. Is it whole?") from error


def upright(image: Image.Image) -> Picture:
    """An opened picture's pixels."""
    image.draft("RGB", (LONGEST, LONGEST))  # a larger JPEG is unpacked at 1/2, 1/4 or 1/8, no smaller than that
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BILINEAR)
    ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(flat(image, "RGB"))


def as_picture(value: object) -> Picture:
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
        return upright(value.copy())
    pixels = np.asarray(value)
    grey = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1)
    if pixels.dtype != np.uint8 or not pixels.size or not (grey or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise UserError(
            f"A picture of type {type(value).__name__}, {pixels.dtype} {pixels.shape}: expected a path, the bytes of a "
            f"file, a Pillow image, or an array of uint8, (H, W) grey or (H, W, 3) RGB."
        )
    return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2) if grey else pixels


def _too_large(name: str, found: str, most: int) -> str:
    return f"{name} is too large ({found}); expected at most {most / 1e6:.0f} million pixels. Make it smaller first."
