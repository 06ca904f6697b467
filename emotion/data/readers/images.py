"""Decoding of image files into faces of one size, for readers of sources that consist of images."""

import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from emotion.config.compose import is_int_at_least
from emotion.data.faces import face_shape
from emotion.data.names import is_litter
from emotion.errors import UserError, counted, listing

if TYPE_CHECKING:
    from emotion.data.crop import Detector

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm", ".pbm", ".pnm",
}  # fmt: skip
"""Endings of image files, for every verb. Only the first image of a file is read."""
COLOR_SUFFIXES = SUFFIXES - {".pbm", ".pgm"}
"""Endings of image files that can hold colors."""

CHUNK, CHUNK_BYTES = 512, 8 << 20  # limits of a chunk: images and bytes
MAX_SIDE = 2048  # pixels in which a detector searches; larger images are shrunk
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


class ImageFormat(NamedTuple):
    """What images become: faces of `size` x `size` pixels, gray (1 channel) or RGB (3).

    A detector finds the face, the largest one of the image; without one, the image is the face.
    """

    size: int
    channels: int
    detector: "Detector | None" = None

    def check(self) -> "ImageFormat":
        """Return it; raise UserError if a value is impossible."""
        if self.channels not in (1, 3) or not is_int_at_least(self.size, 1):
            raise UserError(
                f"data.size={self.size} data.channels={self.channels}: expected a positive whole size, and 1 or 3 "
                f"channels."
            )
        if self.detector is not None and not callable(self.detector):
            raise UserError(f"data.detector={self.detector}: write detector@data.detector={self.detector}.")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a face."""
        return face_shape(self.size, self.channels)


class ImageChunk(NamedTuple):
    """Some images of a source; valid until the next chunk is requested."""

    rows: range
    images: NDArray[np.uint8]  # (n, size, size) or (n, size, size, 3)
    without_face: list[int]  # positions of images in which the detector found no face


class FoundFiles(NamedTuple):
    """What a folder and those below it contain, sorted and without litter."""

    images: list[Path]
    others: list[Path]  # other files
    links: list[Path]  # linked folders, which are not followed


def find_images(folder: Path) -> FoundFiles:
    """Return the images in a folder and in those below it, and what is left out."""
    found = FoundFiles([], [], [])
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_litter(name)]
        found.links.extend(path for name in folders if (path := Path(place, name)).is_symlink())
        for name in names:
            if not is_litter(name):
                path = Path(place, name)
                (found.images if path.suffix.lower() in SUFFIXES else found.others).append(path)
    return FoundFiles(*map(sorted, found))


def read_images(
    files: FileSequence, form: ImageFormat, describe: Callable[[int], str], source: str
) -> Iterator[ImageChunk]:
    """Yield the images in order and in chunks: the face that a detector finds, else the result of `square_crop`.

    After the first image that cannot be read, the rest is only checked, to report all such images at once. `describe`
    returns the name of an image in messages from its row number; `source` is the name of the source.

    Raises:
        UserError: Images cannot be read; the message lists them.
    """
    chunk = max(1, min(CHUNK, CHUNK_BYTES // int(np.prod(form.shape))))
    buffer = np.empty((min(chunk, len(files)), *form.shape), np.uint8)
    unreadable: list[str] = []
    detecting = Lock()
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(files), chunk):
            rows = range(start, min(start + chunk, len(files)))
            images = buffer[: len(rows)]
            blocks = [range(first, min(first + BLOCK, rows.stop)) for first in range(start, rows.stop, BLOCK)]
            decode = partial(_decode, images, files, start=start, form=form, detecting=detecting)
            decoded = list(pool.map(decode, blocks))
            unreadable += [f"{describe(row)}: {reason}" for failed, _ in decoded for row, reason in failed]
            if not unreadable:
                yield ImageChunk(rows, images, [row - start for _, without_face in decoded for row in without_face])
    if unreadable:
        raise UserError(
            f"{len(unreadable)} of {counted(len(files), 'image')} in {source} cannot be read; expected "
            f"{', '.join(FORMATS)}; fix or remove:{listing(unreadable)}"
        )


def _decode(
    images: NDArray[np.uint8], files: FileSequence, rows: range, start: int, form: ImageFormat, detecting: Lock
) -> tuple[list[tuple[int, str]], list[int]]:
    """Decode the files of `rows` into `images`, whose first row is `start`.

    Returns failed rows and the reasons, and rows without a face.
    """
    failed, without_face = [], []
    for row in rows:
        try:
            with Image.open(files[row], formats=FORMATS) as image:
                face = _largest_face(image, form, form.detector, detecting) if form.detector else None
                if face is None:
                    face = np.asarray(square_crop(image, form.size, "L" if form.channels == 1 else "RGB"))
                    without_face += [row] if form.detector else []
                images[row - start] = face
        except DECODE_ERRORS as error:
            failed.append((row, str(error) or type(error).__name__))
    return failed, without_face


def _largest_face(
    image: Image.Image, form: ImageFormat, detector: "Detector", detecting: Lock
) -> NDArray[np.uint8] | None:
    """Return the largest face of an image, upright; None if there is none. Shrinks a large image in place."""
    from emotion.data.crop import crop  # imports OpenCV, which other sources do not need

    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BILINEAR)
    ImageOps.exif_transpose(image, in_place=True)
    pixels = np.asarray(convert_mode(image, "RGB"))
    with detecting:
        boxes = detector(pixels)
    return crop(pixels, boxes[0], form.size, form.channels) if boxes else None


def square_crop(image: Image.Image, size: int, mode: str) -> Image.Image:
    """Apply the EXIF rotation, resize the shorter side to `size` and crop the center of the longer one."""
    image.draft(None, (2 * size, 2 * size))  # decode large JPEG files at 1/2, 1/4 or 1/8, at least at this size
    ImageOps.exif_transpose(image, in_place=True)
    converted = convert_mode(image, mode)
    if converted.size == (size, size):
        return converted
    return ImageOps.fit(converted, (size, size), Image.Resampling.BILINEAR)


def convert_mode(image: Image.Image, mode: str, white: float | None = None) -> Image.Image:
    """Convert any mode to gray (L) or RGB: 16 and 32 bits are scaled to 8, transparent pixels are put on white.

    `white` is the `white_level` of the image that this one is a part of.

    Raises:
        ValueError: Pixels of 16 or 32 bits are below 0 or above the white level.
    """
    if image.mode == "F" or image.mode.startswith("I"):  # Pillow's own conversion clips values above 255
        values, white = np.asarray(image), white or white_level(image)
        if not (values.min() >= 0 and values.max() <= white):  # nor is NaN
            raise ValueError(f"its pixels are not all from 0 to {white:g}")
        image = Image.fromarray(np.rint(values / white * 255).astype(np.uint8))
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    elif image.mode == "CMYK":
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def white_level(image: Image.Image) -> float:
    """Return the value of white: 65535 for integers of 16 and 32 bits, 1 for floats of at most 1, else 255."""
    if image.mode.startswith("I"):
        return 65535
    return 1 if image.mode == "F" and image.getextrema()[1] <= 1 else 255  # type: ignore[operator]  # a number, not bands
