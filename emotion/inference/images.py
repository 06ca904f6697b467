"""Pictures of any size and mode as upright RGB pixels."""

import io
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from emotion.data.readers.images import DAMAGE, FORMATS, flat
from emotion.errors import UserError

BYTES = 140_000_000  # of a file, and of its pixels as Pillow and the libraries below it hold them
WHOLE = 30_000_000  # pixels; a JPEG of more is unpacked at 1/2, 1/4 or 1/8
READS = 1 << 17  # of a file's parts; those of 10 MB, as they are commonly written, are some thousand
PASSES = 100  # over the pixels of a JPEG; encoders make a dozen
SMALL = ("1", "L", "P", "I;16")  # modes of one or two bytes a pixel, which count as two: they are no faster made RGB
IN_A_SCAN = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
SCAN, END = 0xDA, 0xD9  # of a JPEG's markers


class TooMuch(ValueError):
    """A picture costs more than one may; in words that follow "it is"."""


@contextmanager
def opened(source: Path | bytes, pixels: int, longest: int) -> Iterator[tuple[ImageFile, int, int]]:
    """A PNG, JPEG, WEBP or BMP file that can be unpacked, its longer side, and the bytes that unpacking it takes.

    Args:
        source: the file, or what is in it.
        pixels: the most that it may have.
        longest: a JPEG whose sides are twice that or more is unpacked at 1/2, 1/4 or 1/8, no smaller than that.

    Raises:
        TooMuch: it has more than `pixels`, would take more than `BYTES`, or much time.
        UserError: it is none of these.
    """
    content = source if isinstance(source, bytes) else _content(source)
    with Image.open(Parts(content), formats=FORMATS) as image:
        width, height = image.size
        if width * height > pixels:
            raise TooMuch(_large(f"{width} x {height} pixels", f"{pixels / 1e6:.0f} million pixels"))
        shrink = max(max(width, height) / longest, 2 * math.sqrt(width * height / WHOLE))  # to the next of 1, 2, 4, 8
        image.draft("RGB", (max(1, int(width / shrink)), max(1, int(height / shrink))))
        taken = len(content) + _unpacked(image, content, width * height)
        if taken > BYTES:
            raise TooMuch(_large(f"{width} x {height} pixels, {taken / 1e6:.0f} MB unpacked", f"{BYTES / 1e6:.0f} MB"))
        yield image, max(width, height), taken


class Parts(io.BytesIO):
    """A file's bytes, which can be asked for so many times and no more: Pillow goes from part to part in Python."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.left = READS

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes.

        Raises:
            TooMuch: there have been too many parts.
        """
        self.left -= 1
        if self.left < 0:
            raise TooMuch("in more parts than pictures are; save it anew with another program.")
        return super().read(size)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(BYTES + 1)
    if len(content) > BYTES:
        raise TooMuch(_large("as a file", f"{BYTES / 1e6:.0f} MB"))
    return content


def _unpacked(image: ImageFile, content: bytes, pixels: int) -> int:
    """Bytes that are held besides the file itself while an image of so many pixels, as it is now, is unpacked."""
    held: int = image.width * image.height * (2 if image.mode in SMALL else 4)
    if image.format == "WEBP":  # two canvases, a copy, the image; what is lossless is decoded to a fifth
        return 4 * held if b"VP8L" in content or image.mode == "RGBA" else 5 * held // 2
    if isinstance(image, JpegImageFile) and _passes(image, content) > 1:  # which keeps every coefficient
        _, across, down, _ = zip(*image.layer, strict=True)
        blocks = sum(a * d for a, d in zip(across, down, strict=True)) / max(1, max(across) * max(down))
        held += round(2 * blocks * pixels)
    return held


def _passes(image: JpegImageFile, content: bytes) -> int:
    """How often a JPEG goes over its pixels: the scans up to its end; Pillow has stopped in the first."""
    assert image.fp
    place, passes = image.fp.tell(), 1
    while (found := IN_A_SCAN.search(content, place)) and content[found.end() - 1] != END:
        place = found.end() + int.from_bytes(content[found.end() : found.end() + 2])
        passes += content[found.end() - 1] == SCAN
        if passes > PASSES:
            raise TooMuch(f"a JPEG of more than {PASSES} passes; save it anew with another program.")
    return passes


def _large(found: str, most: str) -> str:
    return f"too large ({found}); expected at most {most}. Make it smaller first."


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
