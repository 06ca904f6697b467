"""Frames of images and videos, and the faces in them; few frames are in memory at once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from emotion.inference.images import RGBImage
from emotion.inference.predictor import Face, Predictor
from emotion.inference.tracking import Tracker

BATCH_SIZE, BATCH_BYTES = 16, 16 << 20  # limits of frames processed together; larger batches are not faster


class Frame(NamedTuple):
    """An image, or one frame of a video.

    Attributes:
        source: Name for messages and tables: a path, "camera 0", "standard input".
        output_name: Path of its results, relative to their folder.
        image: (H, W, 3).
        number: Position in the video from 0 on; None for images.
        time: Seconds from the start of the video; None for images.
        scale: Pixels of the source per pixel of `image`.
    """

    source: str
    output_name: Path
    image: RGBImage
    number: int | None = None
    time: float | None = None
    scale: float = 1.0


@dataclass
class VideoStream:
    """A video file, a camera or a stream.

    Attributes:
        source: As in `Frame`.
        output_name: As in `Frame`.
        frames: Iterates once over the frames, which are read as they are needed.
        fps: Frames per second of `frames`.
        num_frames: Frames that the file announces, including skipped ones; None if unknown.
        live: Whether frames arrive in real time, so that batching would delay them.
        num_read: Frames read so far, including skipped ones.
        num_damaged: Frames so far that could not be decoded.
    """

    source: str
    output_name: Path
    frames: Iterator[Frame]
    fps: float
    num_frames: int | None = None
    live: bool = False
    num_read: int = 0
    num_damaged: int = 0

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
    for batch in batch_frames(frames, batch_size):
        for frame, faces in zip(batch, predictor.find_faces([frame.image for frame in batch]), strict=True):
            if tracker is None or frame.time is None:
                yield FrameResult(frame, faces, list(range(1, len(faces) + 1)))
            else:
                tracks = tracker.update(frame.time, faces)
                smoothed = [replace(face, probs=track.probs) for face, track in zip(faces, tracks, strict=True)]
                yield FrameResult(frame, smoothed, [track.number for track in tracks])
        batch.clear()  # frees the frames before the next ones are read


def batch_frames(
    frames: Iterable[Frame], batch_size: int = BATCH_SIZE, max_bytes: int = BATCH_BYTES
) -> Iterator[list[Frame]]:
    """Group frames by number and size; reads no frame before the previous batch is processed."""
    batch: list[Frame] = []
    num_bytes = 0
    for frame in frames:
        batch.append(frame)
        num_bytes += frame.image.nbytes
        if len(batch) >= batch_size or num_bytes + frame.image.nbytes > max_bytes:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch
