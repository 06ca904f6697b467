"""Files that cost more than they show: what it takes to unpack a picture is known, and bounded, before it is begun.

Thirty bytes can say that they are a gigabyte of pixels, and a few megabytes that they are a million parts or ten
thousand passes over the same pixels.
"""

import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from emotion.data.images import FORMATS

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
