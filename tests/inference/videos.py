"""Small videos, and streams of JPEGs, as cameras and ffmpeg make them."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion.inference.video import silence
from tests.pictures import scene


def moving_face(frames: int, width: int = 320, height: int = 240) -> list[NDArray[np.uint8]]:
    """A drawn face that goes from the left to the right."""
    side = height // 2
    step = (width - side - 20) // max(1, frames - 1)
    return [scene((10 + number * step, height // 4, side), width=width, height=height) for number in range(frames)]


def film(path: Path, pictures: Sequence[NDArray[np.uint8]], rate: float = 10.0, codec: str = "mp4v") -> Path:
    """A video file of RGB pictures of one size."""
    silence()  # FFmpeg is told when it is used first
    size = pictures[0].shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), rate, size)
    for picture in pictures:
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    return path


def read(path: Path) -> list[NDArray[np.uint8]]:
    """All frames of a video file, RGB."""
    capture, found = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while (got := capture.read())[0]:
        found.append(got[1][..., ::-1])
    return found


def cut(path: Path, share: float = 0.5) -> Path:
    """The same file without its end."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path
