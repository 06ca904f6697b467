"""Frames of images and videos, and the faces in them; few frames are in memory at once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from emotion.data.crop import RGBImage
from emotion.inference.images import batches
from emotion.inference.predictor import Face, Predictor
from emotion.inference.tracking import Tracker

BATCH_SIZE = 16  # frames processed together; larger batches are not faster


class Frame(NamedTuple):
    """An image, or one frame of a video."""

    source: str  # name for messages and tables: a path, "camera 0", "standard input"
    output_name: Path  # path of its results, relative to their folder
    image: RGBImage
    number: int | None = None  # position in the video, from 0; None for images
    time: float | None = None  # seconds from the start of the video; None for images
    scale: float = 1.0  # pixels of the source per pixel of `image`


@dataclass
class VideoStream:
    """A video file, a camera or a stream."""

    source: str  # as in `Frame`
    output_name: Path
    frames: Iterator[Frame]  # read as they are needed
    fps: float  # of `frames`
    num_frames: int | None = None  # that the file announces, including skipped ones; None if unknown
    live: bool = False  # whether frames arrive in real time, so that batching would delay them
    num_read: int = 0  # so far, including skipped frames
    num_damaged: int = 0  # so far

    def until(self, max_seconds: float | None) -> Iterator[Frame]:
        """Yield the frames, or those of the first `max_seconds`."""
        for frame in self.frames:
            if max_seconds is not None and frame.time is not None and frame.time >= max_seconds:
                self.num_frames = None  # the rest is not missing
                return
            yield frame


class FrameResult(NamedTuple):
    """A frame, its faces, and the number of each face: its track in a video, its rank in an image."""

    frame: Frame
    faces: list[Face]
    face_ids: list[int]


def process_frames(
    frames: Iterable[Frame], predictor: Predictor, tracker: Tracker | None, batch_size: int = BATCH_SIZE
) -> Iterator[FrameResult]:
    """Find and classify the faces of frames, `batch_size` at a time; a tracker numbers and smooths those of videos."""
    for batch in batches(frames, lambda frame: frame.image.nbytes, batch_size):
        for frame, faces in zip(batch, predictor.find_faces([frame.image for frame in batch]), strict=True):
            if tracker is None or frame.time is None:
                yield FrameResult(frame, faces, list(range(1, len(faces) + 1)))
            else:
                tracks = tracker.update(frame.time, faces)
                smoothed = [replace(face, probs=track.probs) for face, track in zip(faces, tracks, strict=True)]
                yield FrameResult(frame, smoothed, [track.number for track in tracks])
        batch.clear()  # frees the frames before the next ones are read
