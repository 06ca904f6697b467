"""Pictures one after another: what a reader hands out, and how few of them are held at once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from emotion.inference.images import Picture
from emotion.inference.predictor import Face, Predictor
from emotion.inference.tracking import Tracker

MOST, MOST_BYTES = 16, 16 << 20  # frames that are looked at together, and their pixels: more is no faster


class Frame(NamedTuple):
    """A picture and what it is.

    Attributes:
        source: for people and tables: a path, "camera 0", "standard input".
        kept: what its own results are called, relative to their folder.
        picture: (H, W, 3).
        number: from 0 on; None where it is no part of a video.
        time: in seconds; None likewise.
        factor: how many pixels of the source are one of `picture` across.
    """

    source: str
    kept: Path
    picture: Picture
    number: int | None = None
    time: float | None = None
    factor: float = 1.0


@dataclass
class Reel:
    """A video, of whatever origin.

    Attributes:
        source: as in `Frame`.
        kept: as in `Frame`.
        frames: can be gone through once, as they are needed.
        rate: frames a second that are handed out.
        length: frames that it says it has, whether handed out or not; None where it does not say.
        live: whether a frame that is held back comes late.
        read: frames so far, whether handed out or not.
        damaged: frames so far that could not be read.
    """

    source: str
    kept: Path
    frames: Iterator[Frame]
    rate: float
    length: int | None = None
    live: bool = False
    read: int = 0
    damaged: int = 0

    def until(self, seconds: float | None) -> Iterator[Frame]:
        """Its frames, or those of its first `seconds`."""
        for frame in self.frames:
            if seconds is not None and frame.time is not None and frame.time >= seconds:
                self.length = None  # whatever it has besides, nobody asked for it
                return
            yield frame


class Seen(NamedTuple):
    """A frame and the faces in it, each with its number: over time in a video, of this picture elsewhere."""

    frame: Frame
    faces: list[Face]
    numbers: list[int]


def seen(frames: Iterable[Frame], predictor: Predictor, tracker: Tracker | None, most: int = MOST) -> Iterator[Seen]:
    """What is in the frames, `most` of them looked at together; a tracker follows the faces from one to the next."""
    for some in together(frames, most):
        for frame, faces in zip(some, predictor.faces_of([frame.picture for frame in some]), strict=True):
            if tracker is None or frame.time is None:
                yield Seen(frame, faces, list(range(1, len(faces) + 1)))
            else:
                yield _followed(frame, faces, tracker, frame.time)
        some.clear()  # before the next few are read


def _followed(frame: Frame, faces: list[Face], tracker: Tracker, time: float) -> Seen:
    tracks = tracker.update(time, faces)
    smooth = [replace(face, shares=track.shares) for face, track in zip(faces, tracks, strict=True)]
    return Seen(frame, smooth, [track.number for track in tracks])


def together(frames: Iterable[Frame], most: int = MOST, most_bytes: int = MOST_BYTES) -> Iterator[list[Frame]]:
    """The same a few at a time, fewer of large ones; none is asked for before the last few are done with."""
    some: list[Frame] = []
    size = 0
    for frame in frames:
        some.append(frame)
        size += frame.picture.nbytes
        if len(some) >= most or size + frame.picture.nbytes > most_bytes:
            yield some
            some, size = [], 0
    if some:
        yield some
