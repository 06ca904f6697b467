"""Decode images of any size and mode into upright RGB pixels, in bounded time and memory.

All limits are checked against the file's header, before any pixel is decoded.
"""

import io
import math
import re
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import SplitResult, quote, unquote_to_bytes, urlsplit
from urllib.request import Request, urlopen

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from emotion.data.crop import RGBImage
from emotion.data.readers.images import DECODE_ERRORS, FORMATS, convert_mode, white_level
from emotion.errors import UserError, first_line

ADDRESSES = ("http://", "https://")
ADDRESS_CHARACTERS = ":/?#[]@!$&'()*+,;=%"  # with a meaning in addresses
COLORS = ("rgb", "bgr")
PASSWORD = re.compile(r"(?<=://)([^/?#:]*):[^/?#]*@")
IMAGE_START = re.compile(rb"\xff\xd8\xff|\x89PNG|RIFF....WEBP|BM|II\*\0|MM\0\*", re.DOTALL)
"""Signatures of JPEG, PNG, WEBP, BMP and TIFF; a GIF may be a video."""

TIMEOUT = 20  # seconds to wait for a server

Item = TypeVar("Item")

MAX_SIDE, MAX_DECODED = 4096, 4096 * 3072  # pixels; larger images are shrunk to that, which loses no detectable face
MAX_PIXELS = 178_956_970  # Pillow's own limit: 12,000 x 14,900
MAX_BYTES = 140_000_000  # of a file plus its pixels inside Pillow and its codecs
MAX_RGB_BYTES = MAX_BYTES + 25_000_000  # of these plus the pixels as RGB
MAX_JPEG_PIXELS = 30_000_000  # larger JPEGs are decoded at 1/2, 1/4 or 1/8
MAX_JPEG_SCANS = 100  # each scan decodes all pixels again; encoders write about ten
MAX_READS = 1 << 17  # Pillow parses chunks in Python; an ordinary file of 10 MB has some thousand
STRIP = 1 << 18  # pixels converted to RGB at once
BATCH_BYTES = 16 << 20  # of images that are processed together
SMALL_MODES = ("1", "L", "P", "I;16")  # at most two bytes a pixel in Pillow
START_OF_SCAN = b"\xff\xda"
ORIENTATION, TILE_WIDTH, TILE_HEIGHT = 0x0112, 0x0142, 0x0143  # EXIF and TIFF tags


class FirstFrameOnly(Warning):
    """Only the first frame of an animated image, or the first page of a TIFF, was read.

    No UserWarning, since the verbs hide those.
    """


class ImageTooLarge(ValueError):
    """The image exceeds a limit; the message completes "FILE is ..."."""


class LoadedImage(NamedTuple):
    """A decoded image."""

    pixels: RGBImage
    scale: float = 1.0  # pixels of the original per pixel of `pixels`; above 1 if the image was shrunk


def load_image(value: object, color: str = "rgb") -> LoadedImage:
    """Load an image from a path, an http(s) address, the bytes of a file, a Pillow image or an array.

    Arrays are uint8: gray (H, W) or (H, W, 1), color (H, W, 3), or color with transparency (H, W, 4), which is
    composited onto white.

    Args:
        value: The image.
        color: Order of the channels of an array: rgb or bgr.

    Raises:
        UserError: `value` is none of these, or the file is missing, damaged or too large.
    """
    if isinstance(value, str) and is_address(value):
        return read_image(download(value), mask_password(value))
    if isinstance(value, str | Path):
        path = Path(value).expanduser()
        if path.is_dir():
            raise UserError(f"{value} is a folder; expected an image file. Pass a folder on its own, not in a list.")
        if not path.is_file():
            problem = "is not a regular file" if path.exists() else "does not exist"
            raise UserError(f"{value} {problem}; expected an image file.")
        return read_image(path)
    if isinstance(value, bytes | bytearray):
        return read_image(bytes(value))
    if isinstance(value, Image.Image):
        try:
            return _to_rgb(value.copy(), max(value.size))
        except DECODE_ERRORS as error:
            raise UserError(f"Found a Pillow image that cannot be read ({first_line(error)}).") from error
    pixels = np.asarray(value)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or not pixels.size or pixels.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise UserError(
            f"Found an image of type {type(value).__name__}, {pixels.dtype} {pixels.shape}; expected a path, an "
            f"address, the bytes of a file, a Pillow image, or a uint8 array: (H, W) gray, (H, W, 3) RGB or (H, W, 4) "
            f"RGBA; several: a list of these, or an array (N, H, W) or (N, H, W, 3 or 4)."
        )
    if channels == 1:
        return LoadedImage(np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2))
    if color == "bgr":
        pixels = pixels[:, :, [2, 1, 0, 3][:channels]]
    return LoadedImage(pixels) if channels == 3 else _to_rgb(Image.fromarray(pixels), max(pixels.shape[:2]))


def is_address(name: str) -> bool:
    """Return whether a name is an http(s) address."""
    return name.lower().startswith(ADDRESSES)


def mask_password(address: str) -> str:
    """Return an address for messages and results: with asterisks in the place of its password."""
    return PASSWORD.sub(r"\1:***@", address)


def parse_address(address: str) -> SplitResult:
    """Return the parts of an address: percent-encoded, as by a browser, and with its scheme in lower case.

    Raises:
        UserError: The address is malformed.
    """
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise UserError(
            f"{mask_password(address)} is no address ({first_line(error)}); expected one like http://HOST/PATH."
        ) from error
    path, query = (quote(part, ADDRESS_CHARACTERS) for part in (parts.path, parts.query))
    return parts._replace(path=path, query=query)


def download(address: str) -> bytes:
    """Return the content of a file on the web, at most `MAX_BYTES` of it.

    Raises:
        UserError: The server does not respond within `TIMEOUT` seconds, refuses, or sends more.
    """
    content: bytes = _request(address, lambda response: response.read(MAX_BYTES + 1))
    if len(content) > MAX_BYTES:
        raise UserError(f"{mask_password(address)} is {_too_large('as a file', f'{MAX_BYTES / 1e6:.0f} MB')}")
    return content


def is_image(address: str) -> bool:
    """Return whether a server sends an image: a file that begins as one, or is stated to be one.

    What is stated to be a video is one, as the stream of a camera may consist of images.

    Raises:
        UserError: As in `download`.
    """
    return bool(_request(address, _sends_image))


def _sends_image(response: HTTPResponse) -> bool:
    media_type = response.headers.get_content_type()
    if media_type.startswith(("video/", "multipart/")):
        return False
    return media_type.startswith("image/") or IMAGE_START.match(response.read(12)) is not None


def _request(address: str, read: Callable[[Any], Any]) -> Any:  # noqa: ANN401
    parts = parse_address(address)
    login, has_login, host = parts.netloc.rpartition("@")
    try:
        request = Request(parts._replace(netloc=host).geturl(), headers={"User-Agent": "emotion"})
        if has_login:
            user, _, password = login.partition(":")
            credentials = b64encode(unquote_to_bytes(f"{user}:{password}")).decode()
            request.add_unredirected_header("Authorization", f"Basic {credentials}")  # for this server only
        with urlopen(request, timeout=TIMEOUT) as response:
            return read(response)
    except (OSError, ValueError, HTTPException) as error:
        raise UserError(
            f"{mask_password(address)} cannot be loaded ({first_line(error)}). Does it open in a browser?"
        ) from error


def read_image(source: Path | bytes, name: str = "", max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """Decode a file of one of `FORMATS`: rotated as EXIF states, on white, with sides of at most `MAX_SIDE`.

    Args:
        source: The file or its bytes.
        name: Name of the image in messages; defaults to the path.
        max_pixels: Larger images are rejected.

    Warns:
        FirstFrameOnly: The file has further frames or pages. The further pictures of a phone's photo do not count.

    Raises:
        UserError: The file is not an image, damaged, larger than `max_pixels`, or too expensive to decode.
    """
    name = name or str(source if isinstance(source, Path) else "the image")
    try:
        content = source if isinstance(source, bytes) else _read_file(source)
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(_LimitedReader(content), formats=FORMATS) as image,
        ):
            max_side = max(image.size)
            num_bytes = _prepare(image, content, max_pixels)
            is_animated = image.format != "MPO" and bool(getattr(image, "is_animated", False))
            loaded = _to_rgb(image, max_side, num_bytes)
    except ImageTooLarge as error:
        raise UserError(f"{name} is {error}") from error
    except Image.DecompressionBombError as error:
        found = str(error).split(",")[0]
        raise UserError(f"{name} is {_too_large(found, f'{max_pixels / 1e6:.0f} million pixels')}") from error
    except DECODE_ERRORS as error:
        reason = first_line(error)
        expected = f"expected a complete image: {', '.join(FORMATS)}"
        if isinstance(error, UnidentifiedImageError):  # e.g. HEIC photos from phones
            reason, expected = "unknown format", f"{expected}. Convert others, such as HEIC, to JPEG or PNG"
        raise UserError(f"{name} cannot be read ({reason}); {expected}.") from error
    if is_animated:
        warnings.warn(f"{name} has several frames or pages; only the first one is used.", FirstFrameOnly, stacklevel=2)
    return loaded


def is_animated_gif(source: Path | bytes) -> bool:
    """Return whether a file, or its content, is a GIF of several frames."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=["GIF"]) as image:
            return bool(getattr(image, "is_animated", False))
    except DECODE_ERRORS:
        return False  # `read_image` reports what is wrong


def batches(
    items: Iterable[Item], num_bytes: Callable[[Item], int], batch_size: int, max_bytes: int = BATCH_BYTES
) -> Iterator[list[Item]]:
    """Group items by number and size in memory; reads no item before the previous batch is processed."""
    batch: list[Item] = []
    total = 0
    for item in items:
        batch.append(item)
        total += num_bytes(item)
        if len(batch) >= batch_size or total + num_bytes(item) > max_bytes:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


class _LimitedReader(io.BytesIO):
    """A file in memory that can be read `MAX_READS` times, which bounds the time that Pillow spends on chunks."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.reads_left = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise ImageTooLarge(f"split into more than {MAX_READS:,} parts; save it again with another program.")
        return super().read(size)


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ImageTooLarge(_too_large("as a file", f"{MAX_BYTES / 1e6:.0f} MB"))
    return content


def _prepare(image: ImageFile, content: bytes, max_pixels: int) -> int:
    """Check an opened image's limits, let a large JPEG decode at a fraction, and return the bytes that decoding takes.

    Raises:
        ImageTooLarge: A limit is exceeded.
    """
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLarge(_too_large(f"{width} x {height} pixels", f"{max_pixels / 1e6:.0f} million pixels"))
    if image.format in ("JPEG", "MPO") and content.count(START_OF_SCAN) > MAX_JPEG_SCANS:
        raise ImageTooLarge(f"a JPEG of more than {MAX_JPEG_SCANS} scans; save it again with another program.")
    shrink = max(max(width, height) / MAX_SIDE, 2 * math.sqrt(width * height / MAX_JPEG_PIXELS))
    image.draft("RGB", (max(1, int(width / shrink)), max(1, int(height / shrink))))
    num_bytes = len(content) + _decoded_bytes(image, content, width * height)
    if num_bytes > MAX_BYTES:
        found = f"{width} x {height} pixels, {num_bytes / 1e6:.0f} MB decoded"
        raise ImageTooLarge(_too_large(found, f"{MAX_BYTES / 1e6:.0f} MB"))
    return num_bytes


def _decoded_bytes(image: ImageFile, content: bytes, num_pixels: int) -> int:
    """Estimate the memory that decoding takes besides the file; `num_pixels` is the size before `draft`."""
    num_bytes: int = image.width * image.height * (2 if image.mode in SMALL_MODES else 4)
    if image.format == "WEBP":  # two canvases, a copy and the image; lossless ones take a fifth more
        return 4 * num_bytes if b"VP8L" in content or image.mode == "RGBA" else 5 * num_bytes // 2
    if image.format == "TIFF":  # a tile may be larger than the image
        tags = image.tag_v2  # type: ignore[attr-defined]
        num_bytes += 4 * int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_HEIGHT, 0))
    if image.info.get("progressive"):  # libjpeg keeps two bytes for each coefficient
        _, horizontal, vertical, _ = zip(*image.layer, strict=True)  # type: ignore[attr-defined]
        blocks = sum(h * v for h, v in zip(horizontal, vertical, strict=True))
        num_bytes += round(2 * num_pixels * blocks / max(1, max(horizontal) * max(vertical)))
    return num_bytes


def _too_large(found: str, limit: str) -> str:
    return f"too large ({found}); expected at most {limit}. Make it smaller first."


def _to_rgb(image: Image.Image, max_side: int, num_bytes: int = 0) -> LoadedImage:
    """Decode, convert, shrink and rotate an image, then close it.

    Args:
        image: An opened image.
        max_side: Its longer side before `draft`.
        num_bytes: Memory that it takes.
    """
    image.load()
    orientation = image.getexif().get(ORIENTATION)
    pixels = _convert_strips(image, num_bytes)
    image.close()
    if (shrink := _shrink_factor(pixels.shape[1], pixels.shape[0])) > 1:
        size = max(1, round(pixels.shape[1] / shrink)), max(1, round(pixels.shape[0] / shrink))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    flip_y, flip_x = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    pixels = np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
    return LoadedImage(pixels, max_side / max(pixels.shape[:2]))


def _convert_strips(image: Image.Image, num_bytes: int) -> RGBImage:
    """Convert to RGB strip by strip, reduced by the largest integer that keeps the image above its final size."""
    width, height = image.size
    step = int(max(1, _shrink_factor(width, height)))
    while num_bytes + 3 * width * height / step**2 > MAX_RGB_BYTES:
        step += 1
    pixels = np.empty((-(-height // step), -(-width // step), 3), np.uint8)
    rows, white = max(1, STRIP // (width * step)), white_level(image)
    for top in range(0, len(pixels), rows):
        strip = image.crop((0, top * step, width, min((top + rows) * step, height)))
        pixels[top : top + rows] = np.asarray(convert_mode(strip, "RGB", white).reduce(step))
    return pixels


def _shrink_factor(width: int, height: int) -> float:
    return max(max(width, height) / MAX_SIDE, math.sqrt(width * height / MAX_DECODED))
