"""Image files to faces of one size, whatever they are: shared by the readers whose sources consist of images."""

import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from emotion.errors import UserError, listing

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
CHUNK, CHUNK_BYTES = 512, 8 << 20  # images at once, and the most that they take
BLOCK = 16  # images that a thread takes at once: handing out single small ones takes longer than reading them
THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes without the interpreter's lock
DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error),  # all of which damaged files come to
    Image.DecompressionBombError,
)


class Files(Protocol):
    """Files by number; a list of them will do."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Path: ...


def read_images(
    files: Files, size: int, channels: int, describe: Callable[[int], str], source: str
) -> Iterator[tuple[range, NDArray[np.uint8]]]:
    """The images in order, some at a time: which they are, and (n, size, size) grey or (n, size, size, 3) RGB.

    What is handed out is valid until the next is asked for. From the first image on that cannot be read, the rest is
    looked at only to find all such images.

    Raises:
        UserError: a list of those that cannot be read, each as `describe` calls the image of a place in `files`.
    """
    shape = (size, size) if channels == 1 else (size, size, 3)
    at_once = max(1, min(CHUNK, CHUNK_BYTES // int(np.prod(shape))))
    buffer = np.empty((min(at_once, len(files)), *shape), np.uint8)
    unreadable: list[str] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(files), at_once):
            places = range(start, min(start + at_once, len(files)))
            images = buffer[: len(places)]
            blocks = [range(first, min(first + BLOCK, places.stop)) for first in range(start, places.stop, BLOCK)]
            reasons = pool.map(lambda block, images=images, start=start: _fill(images, files, block, start), blocks)
            unreadable += [f"{describe(place)}: {reason}" for found in reasons for place, reason in found]
            if not unreadable:
                yield places, images
    if unreadable:
        raise UserError(
            f"{len(unreadable)} of {len(files)} images in {source} cannot be read; expected {', '.join(FORMATS)}; "
            f"mend or remove:{listing(unreadable)}"
        )


def _fill(images: NDArray[np.uint8], files: Files, places: range, start: int) -> list[tuple[int, str]]:
    """Read the files of `places` into `images`, whose first is that of `start`; those that cannot be read, and why."""
    mode, unreadable = "L" if images.ndim == 3 else "RGB", []
    for place in places:
        try:
            with Image.open(files[place], formats=FORMATS) as image:
                images[place - start] = np.asarray(square(image, images.shape[1], mode))
        except DAMAGE as error:
            unreadable.append((place, str(error) or type(error).__name__))
    return unreadable


def square(image: Image.Image, size: int, mode: str) -> Image.Image:
    """Turned as its EXIF data say, the shorter side `size`, the middle of the longer one."""
    image.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at 1/2, 1/4 or 1/8, no smaller than that
    ImageOps.exif_transpose(image, in_place=True)
    plain = flat(image, mode)
    return plain if plain.size == (size, size) else ImageOps.fit(plain, (size, size), Image.Resampling.BILINEAR)


def flat(image: Image.Image, mode: str) -> Image.Image:
    """Grey (L) or RGB of any mode: 16 bits scaled to 8, what is transparent on white, as a browser shows it."""
    if image.mode.startswith("I"):  # Pillow's own conversion cuts off what is above 255
        values = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 -> 255
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    elif image.mode == "CMYK":
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)
