"""Small videos."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion.inference.video import silence_opencv
from tests.images import scene


def moving_face(num_frames: int, width: int = 320, height: int = 240) -> list[NDArray[np.uint8]]:
    """Frames with a drawn face that moves from left to right."""
    side = height // 2
    step = (width - side - 20) // max(1, num_frames - 1)
    return [scene((10 + i * step, height // 4, side), width=width, height=height) for i in range(num_frames)]


def write_video(path: Path, frames: Sequence[NDArray[np.uint8]], fps: float = 10.0, codec: str = "mp4v") -> Path:
    """Write RGB frames of one size."""
    silence_opencv()
    size = frames[0].shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size)
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def read_video(path: Path) -> list[NDArray[np.uint8]]:
    """Return all frames in RGB."""
    capture, frames = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while (result := capture.read())[0]:
        frames.append(result[1][..., ::-1])
    return frames


def truncate(path: Path, fraction: float = 0.5) -> Path:
    """Cut off the end of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    return path
