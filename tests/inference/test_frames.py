import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emotion.inference.detectors import Whole
from emotion.inference.frames import MOST, Frame, seen, together
from emotion.inference.predictor import Predictor
from emotion.inference.tracking import Tracker


class Brightness:
    """Tells bright faces from dark ones."""

    name, classes, side, channels = "Brightness", ("bright", "dark"), 4, 1

    def probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        bright = faces.reshape(len(faces), -1).mean(1) / 255
        return np.stack([bright, 1 - bright], 1).astype(np.float32)


JUDGE = Predictor(Brightness(), Whole())


def frame(number: int, level: int = 0) -> Frame:
    return Frame("clip", Path("clip"), np.full((8, 8, 3), level, np.uint8), number, 0.1 * number)


def test_so_many_are_looked_at_together() -> None:
    assert [len(some) for some in together(map(frame, range(10)), most=4)] == [4, 4, 2]
    assert list(together(iter(()))) == []


def test_of_large_ones_fewer_are() -> None:
    bytes_of_two = 2 * 8 * 8 * 3
    assert [len(some) for some in together(map(frame, range(5)), most_bytes=bytes_of_two)] == [2, 2, 1]
    assert [len(some) for some in together(map(frame, range(3)), most_bytes=1)] == [1, 1, 1]


def test_of_a_long_video_only_a_few_frames_are_held() -> None:
    alive, most = [0], [0]

    def gone() -> None:
        alive[0] -= 1

    def frames() -> Iterator[Frame]:
        for number in range(20 * MOST):
            new = frame(number)
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            weakref.finalize(new.picture, gone)
            yield new

    assert sum(1 for _ in seen(frames(), JUDGE, Tracker(0.5))) == 20 * MOST
    assert MOST <= most[0] <= MOST + 2


def test_a_live_frame_is_judged_before_the_next_is_read() -> None:
    asked = []

    def frames() -> Iterator[Frame]:
        for number in range(5):
            asked.append(number)
            yield frame(number)

    for found in seen(frames(), JUDGE, Tracker(), most=1):
        assert asked[-1] == found.frame.number


def test_faces_of_a_video_are_followed_and_smoothed() -> None:
    levels = [0] * 5 + [255] * 5
    found = list(seen(map(frame, range(10), levels), JUDGE, Tracker(smoothing=0.5)))
    assert [one.numbers for one in found] == [[1]] * 10
    bright = [float(one.faces[0].shares[0]) for one in found]
    assert bright[:5] == [0.0] * 5
    assert bright[5:] == pytest.approx([1 - np.exp(-0.2 * step) for step in range(1, 6)], abs=1e-5)
    assert found[-1].faces[0].label == "bright"


def test_pictures_have_nothing_to_do_with_each_other() -> None:
    stills = [Frame("x", Path("x"), np.full((8, 8, 3), level, np.uint8)) for level in (0, 255)]
    found = list(seen(stills, JUDGE, Tracker(smoothing=0.5)))
    assert [(one.numbers, one.faces[0].label) for one in found] == [([1], "dark"), ([1], "bright")]
