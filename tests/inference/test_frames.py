import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emotion.inference.detectors import FullImage
from emotion.inference.frames import BATCH_SIZE, Frame, process_frames
from emotion.inference.predictor import Predictor
from emotion.inference.tracking import Tracker


class Brightness:
    """A backend that distinguishes bright faces from dark ones."""

    name, classes, side, channels = "Brightness", ("bright", "dark"), 4, 1

    def probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        bright = faces[:, -1, -1] / 255
        return np.stack([bright, 1 - bright], 1).astype(np.float32)


PREDICTOR = Predictor(Brightness(), FullImage())


def image(level: int) -> NDArray[np.uint8]:
    """An image (8, 8, 3) of one level, but for a column, without which it would be blank."""
    pixels = np.full((8, 8, 3), level, np.uint8)
    pixels[:, 0] = 128
    return pixels


def frame(number: int, level: int = 0) -> Frame:
    return Frame("clip", Path("clip"), image(level), number, 0.1 * number)


def test_few_frames_of_a_long_video_are_in_memory() -> None:
    alive, peak = [0], [0]

    def collect() -> None:
        alive[0] -= 1

    def frames() -> Iterator[Frame]:
        for number in range(20 * BATCH_SIZE):
            new = frame(number)
            alive[0] += 1
            peak[0] = max(peak[0], alive[0])
            weakref.finalize(new.image, collect)
            yield new

    assert sum(1 for _ in process_frames(frames(), PREDICTOR, Tracker(0.5))) == 20 * BATCH_SIZE
    assert BATCH_SIZE <= peak[0] <= BATCH_SIZE + 2


def test_a_live_frame_is_processed_before_the_next_is_read() -> None:
    read = []

    def frames() -> Iterator[Frame]:
        for number in range(5):
            read.append(number)
            yield frame(number)

    for result in process_frames(frames(), PREDICTOR, Tracker(), batch_size=1):
        assert read[-1] == result.frame.number


def test_faces_of_a_video_are_tracked_and_smoothed() -> None:
    levels = [0] * 5 + [255] * 5
    results = list(process_frames(map(frame, range(10), levels), PREDICTOR, Tracker(smoothing=0.5)))
    assert [result.face_ids for result in results] == [[1]] * 10
    bright = [float(result.faces[0].probs[0]) for result in results]
    assert bright[:5] == [0.0] * 5
    assert bright[5:] == pytest.approx([1 - np.exp(-0.2 * step) for step in range(1, 6)], abs=1e-5)
    assert results[-1].faces[0].label == "bright"


def test_images_are_not_tracked() -> None:
    images = [Frame("x", Path("x"), image(level)) for level in (0, 255)]
    results = list(process_frames(images, PREDICTOR, Tracker(smoothing=0.5)))
    assert [(result.face_ids, result.faces[0].label) for result in results] == [([1], "dark"), ([1], "bright")]
