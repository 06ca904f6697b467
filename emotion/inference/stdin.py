"""A picture, or JPEGs one after another, from a stream of bytes such as standard input."""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Protocol

from emotion.errors import UserError
from emotion.inference.frames import Frame, Reel
from emotion.inference.images import read_picture

NAME, KEPT = "standard input", Path("standard_input")
AT_ONCE, MOST_BYTES = 1 << 16, 64 << 20  # that are asked for, and that one picture may have
START, IN_A_SCAN = b"\xff\xd8\xff", re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
SEVERAL_IN_ONE = b"MPF\x00"  # a telephone's photograph, with further pictures of the same scene behind it


class Bytes(Protocol):
    """What can be read from, such as sys.stdin.buffer."""

    def read1(self, size: int, /) -> bytes:
        """What there is, `size` at most; waits for the first byte; empty at the end."""


def piped(file: Bytes, rate: float, every: int = 1) -> Frame | Reel:
    """One picture of any format, or what `ffmpeg ... -f mjpeg -` and cameras give, read as it is needed.

    Args:
        file: to be read to its end.
        rate: pictures a second, which such a stream does not say.
        every: hand out the first of so many.

    Raises:
        UserError: it is empty, too large for a picture, or none.
    """
    stream = _Stream(file)
    if not stream.has(len(START)):
        raise UserError(f"{NAME} is empty; expected a picture, or JPEGs one after another (ffmpeg -i FILE -f mjpeg -).")
    if not stream.begins(START):
        return _frame(stream.rest())
    each = stream.jpegs()
    first = next(each)
    second = None if SEVERAL_IN_ONE in first[:AT_ONCE] else next(each, None)
    if second is None:
        return _frame(first)
    reel = Reel(NAME, KEPT, iter(()), rate / every, live=True)
    reel.frames = _read(chain((first, second), each), reel, rate, every)
    return reel


def _read(jpegs: Iterator[bytes], reel: Reel, rate: float, every: int) -> Iterator[Frame]:
    for number, content in enumerate(jpegs):
        reel.read += 1
        if number % every == 0:
            try:
                frame = _frame(content)
            except UserError:  # of thousands, one; how many is said in the end
                reel.damaged += 1
                continue
            yield frame._replace(number=number, time=number / rate)


def _frame(content: bytes) -> Frame:
    picture = read_picture(content, NAME)
    return Frame(NAME, KEPT, picture.pixels, factor=picture.factor)


class _Stream:
    """Bytes that were read and not yet handed out, no more than one picture's."""

    def __init__(self, file: Bytes) -> None:
        self.file, self.held = file, bytearray()

    def has(self, size: int) -> bool:
        """Whether there are so many bytes, having waited for them."""
        while len(self.held) < size:
            more = self.file.read1(AT_ONCE)
            if not more:
                return False
            self.held += more
            if len(self.held) > MOST_BYTES + AT_ONCE:
                raise UserError(f"{NAME}: expected pictures of at most {MOST_BYTES >> 20} MiB; found a larger one.")
        return True

    def begins(self, start: bytes) -> bool:
        return self.held.startswith(start)

    def rest(self) -> bytes:
        self.has(MOST_BYTES + 2 * AT_ONCE)  # that is, to the end
        return bytes(self.held)

    def jpegs(self) -> Iterator[bytes]:
        """Each from its start to its end; what lies between them is left out, one without an end is the last."""
        while self._seek_start():
            end = self._end()
            yield bytes(self.held[:end])
            del self.held[:end]

    def _seek_start(self) -> bool:
        while (place := self.held.find(START)) < 0:
            del self.held[: max(0, len(self.held) - len(START) + 1)]
            if not self.has(len(self.held) + 1):
                return False
        del self.held[:place]
        return True

    def _end(self) -> int:
        """Where the JPEG at the beginning ends: its segments are stepped over, for they may hold JPEGs themselves."""
        place = 2
        while self.has(place + 2):
            marker = self.held[place + 1]
            if self.held[place] != 0xFF:
                return place  # damaged; the next start is looked for from here
            if marker == 0xD9:
                return place + 2
            if marker == 0xFF:  # filling
                place += 1
                continue
            if not self.has(place + 4):
                break
            place += 2 + int.from_bytes(self.held[place + 2 : place + 4])
            if marker == 0xDA:  # compressed pixels follow, up to the next marker
                while not (found := IN_A_SCAN.search(self.held, place)):
                    place = max(place, len(self.held) - 1)
                    if not self.has(len(self.held) + 1):
                        return len(self.held)
                place = found.start()
        return len(self.held)
