"""Decoding of image files into faces of one size, for readers of sources that consist of images."""

import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from emotion.data.names import is_litter
from emotion.errors import UserError, counted, listing

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm", ".pbm", ".pnm",
}  # fmt: skip
"""Endings of image files, for every verb. Only the first image of a file is read."""

CHUNK, CHUNK_BYTES = 512, 8 << 20  # limits of a chunk: images and bytes
BLOCK = 16  # images per task of a thread; small images are read faster than single tasks are scheduled
THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes without the interpreter's lock
DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error),
    Image.DecompressionBombError,
)
"""Exceptions that Pillow raises for damaged files."""


class FileSequence(Protocol):
    """Files, or their content, by row number; a list of paths is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Path | BinaryIO: ...


def check_shape(size: int, channels: int) -> None:
    """Raise UserError if faces cannot have this side in pixels and number of channels."""
    if channels not in (1, 3) or size < 1:
        raise UserError(f"data.size={size} data.channels={channels}: expected a positive size, and 1 or 3 channels.")


def find_images(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images in a folder and in those below it, and the other files, both sorted; litter is in neither."""
    images: list[Path] = []
    others: list[Path] = []
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]  # not followed
        folders[:] = [name for name in folders if not is_litter(name)]
        for name in (*names, *links):
            if not is_litter(name):
                path = Path(place, name)
                (images if path.suffix.lower() in SUFFIXES else others).append(path)
    return sorted(images), sorted(others)


def read_images(
    files: FileSequence, size: int, channels: int, describe: Callable[[int], str], source: str
) -> Iterator[tuple[range, NDArray[np.uint8]]]:
    """Yield the images in order and in chunks, resized and center-cropped by `square_crop`.

    After the first image that cannot be read, the rest is only checked, to report all such images at once. `describe`
    returns the name of an image in messages from its row number; `source` is the name of the source.

    Yields:
        The chunk's row numbers, and its images (n, size, size) or (n, size, size, 3), valid until the next chunk.

    Raises:
        UserError: Images cannot be read; the message lists them.
    """
    shape = (size, size) if channels == 1 else (size, size, 3)
    chunk = max(1, min(CHUNK, CHUNK_BYTES // int(np.prod(shape))))
    buffer = np.empty((min(chunk, len(files)), *shape), np.uint8)
    unreadable: list[str] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(files), chunk):
            rows = range(start, min(start + chunk, len(files)))
            images = buffer[: len(rows)]
            blocks = [range(first, min(first + BLOCK, rows.stop)) for first in range(start, rows.stop, BLOCK)]
            errors = pool.map(lambda block, images=images, start=start: _decode(images, files, block, start), blocks)
            unreadable += [f"{describe(row)}: {reason}" for block in errors for row, reason in block]
            if not unreadable:
                yield rows, images
    if unreadable:
        raise UserError(
            f"{len(unreadable)} of {counted(len(files), 'image')} in {source} cannot be read; expected "
            f"{', '.join(FORMATS)}; fix or remove:{listing(unreadable)}"
        )


def _decode(images: NDArray[np.uint8], files: FileSequence, rows: range, start: int) -> list[tuple[int, str]]:
    """Decode the files of `rows` into `images`, whose first row is `start`; return failed rows and the reasons."""
    mode, failed = "L" if images.ndim == 3 else "RGB", []
    for row in rows:
        try:
            with Image.open(files[row], formats=FORMATS) as image:
                images[row - start] = np.asarray(square_crop(image, images.shape[1], mode))
        except DECODE_ERRORS as error:
            failed.append((row, str(error) or type(error).__name__))
    return failed


def square_crop(image: Image.Image, size: int, mode: str) -> Image.Image:
    """Apply the EXIF rotation, resize the shorter side to `size` and crop the centre of the longer one."""
    image.draft(None, (2 * size, 2 * size))  # decode large JPEG files at 1/2, 1/4 or 1/8, at least at this size
    ImageOps.exif_transpose(image, in_place=True)
    converted = convert_mode(image, mode)
    if converted.size == (size, size):
        return converted
    return ImageOps.fit(converted, (size, size), Image.Resampling.BILINEAR)


def convert_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert any mode to grey (L) or RGB: 16 bits are scaled to 8, transparent pixels are put on white."""
    if image.mode.startswith("I"):  # Pillow's own conversion clips values above 255
        values = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 -> 255
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    elif image.mode == "CMYK":
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)
