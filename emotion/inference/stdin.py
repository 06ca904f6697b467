"""Read an image, or a sequence of JPEGs, from a stream of bytes such as standard input."""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Protocol

from emotion.errors import UserError
from emotion.inference.frames import Frame, VideoStream
from emotion.inference.images import IMAGE_START, is_animated_gif, read_image
from emotion.inference.video import open_gif

NAME, OUTPUT_NAME = "standard input", Path("standard_input")
READ_SIZE, MAX_BYTES = 1 << 16, 64 << 20  # of one read, and of one image
START_OF_IMAGE, NEXT_IMAGE, END_OF_IMAGE, START_OF_SCAN = b"\xff\xd8\xff", 0xD8, 0xD9, 0xDA
MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
MULTI_PICTURE = b"MPF\x00"  # a phone's photo, followed by other images of the same scene


class ByteStream(Protocol):
    """A readable stream such as sys.stdin.buffer."""

    def read1(self, size: int, /) -> bytes:
        """Return at most `size` available bytes, waiting for the first; empty at the end."""


def read_stdin(stream: ByteStream, fps: float, frame_stride: int = 1) -> Frame | VideoStream:
    """Read one image of any format, an animated GIF, or a JPEG stream as `ffmpeg ... -f mjpeg -` and cameras write it.

    Frames are read as they are needed, and every Nth is yielded. JPEG streams do not state their `fps`.

    Raises:
        UserError: The stream is empty, not an image, or contains an image that is too large.
    """
    buffer = _Buffer(stream)
    if not buffer.fill(len(START_OF_IMAGE)):
        raise UserError(f"{NAME} is empty; expected an image or a sequence of JPEGs (ffmpeg -i FILE -f mjpeg -).")
    if not buffer.content.startswith(START_OF_IMAGE):
        buffer.fill(MAX_BYTES + 2 * READ_SIZE)  # to the end
        content = bytes(buffer.content)
        _check_rest(content[_end(content) :])
        if is_animated_gif(content):
            return open_gif(content, NAME, OUTPUT_NAME, frame_stride)
        return _decode(content)
    jpegs = buffer.jpegs()
    first = next(jpegs)
    second = None if MULTI_PICTURE in first[:READ_SIZE] else next(jpegs, None)
    if second is None:
        return _decode(first)
    video = VideoStream(NAME, OUTPUT_NAME, iter(()), fps / frame_stride, live=True)
    video.frames = _decode_frames(chain((first, second), jpegs), video, fps, frame_stride)
    return video


def _decode_frames(jpegs: Iterator[bytes], video: VideoStream, fps: float, frame_stride: int) -> Iterator[Frame]:
    for index, content in enumerate(jpegs):
        video.num_read += 1
        if index % frame_stride == 0:
            try:
                frame = _decode(content)
            except UserError:
                video.num_damaged += 1
                continue
            yield frame._replace(number=index, time=index / fps)


def _decode(content: bytes) -> Frame:
    image = read_image(content, NAME)
    return Frame(NAME, OUTPUT_NAME, image.pixels, scale=image.scale)


def _end(content: bytes) -> int:
    """Return where a PNG, WEBP or BMP ends by its own account; the end of the content for other formats."""
    if content.startswith(b"\x89PNG"):
        last = content.find(b"IEND")
        return last + 8 if last > 0 else len(content)
    if content.startswith(b"RIFF"):
        return 8 + int.from_bytes(content[4:8], "little")
    return int.from_bytes(content[2:6], "little") if content.startswith(b"BM") else len(content)


def _check_rest(content: bytes | bytearray) -> None:
    """Raise UserError if another image follows, of a format that only single images may have."""
    if IMAGE_START.match(content):
        raise UserError(
            f"{NAME} has another image after the first; expected one image, or a sequence of JPEGs "
            f"(ffmpeg -i FILE -f mjpeg -)."
        )


class _Buffer:
    """Bytes that were read but not yet returned, at most those of one image."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream, self.content = stream, bytearray()

    def fill(self, size: int) -> bool:
        """Wait until `size` bytes are available; return False if the stream ends first."""
        while len(self.content) < size:
            chunk = self.stream.read1(READ_SIZE)
            if not chunk:
                return False
            self.content += chunk
            if len(self.content) > MAX_BYTES + READ_SIZE:
                raise UserError(f"{NAME} contains an image above {MAX_BYTES >> 20} MiB; expected smaller images.")
        return True

    def jpegs(self) -> Iterator[bytes]:
        """Yield each JPEG from start to end and skip bytes between them; the last may be incomplete."""
        while self._skip_to_start():
            end = self._find_end()
            yield bytes(self.content[:end])
            del self.content[:end]

    def _skip_to_start(self) -> bool:
        if self.fill(12) and not self.content.startswith(START_OF_IMAGE):
            _check_rest(self.content)
        while (start := self.content.find(START_OF_IMAGE)) < 0:
            del self.content[: max(0, len(self.content) - len(START_OF_IMAGE) + 1)]
            if not self.fill(len(self.content) + 1):
                return False
        del self.content[:start]
        return True

    def _find_end(self) -> int:
        """Return the end of the first JPEG; skips its segments, which may contain thumbnails in JPEG.

        A truncated JPEG ends where the next one starts.
        """
        segment = position = 2
        while self.fill(position + 2):
            marker = self.content[position + 1]
            if self.content[position] != 0xFF:
                break
            if marker == END_OF_IMAGE:
                return position + 2
            if marker == NEXT_IMAGE:
                return position
            if marker == 0xFF:  # padding
                position += 1
                continue
            if not self.fill(position + 4):
                break
            segment, position = position, position + 2 + int.from_bytes(self.content[position + 2 : position + 4])
            if marker == START_OF_SCAN:  # entropy-coded data without length
                while not (match := MARKER_IN_SCAN.search(self.content, position)):
                    position = max(position, len(self.content) - 1)
                    if not self.fill(len(self.content) + 1):
                        return len(self.content)
                position = match.start()
        start = self.content.find(START_OF_IMAGE, segment, position)  # the last segment was cut off
        return start if start > 0 else position
