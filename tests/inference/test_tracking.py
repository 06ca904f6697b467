import numpy as np
import pytest

from emotion.inference.detectors import Box
from emotion.inference.predictor import Face
from emotion.inference.tracking import GAP_FRAMES, GAP_SECONDS, Tracker, overlap


def face(left: float, happy: float = 1.0, side: float = 100.0) -> Face:
    shares = np.array([happy, 1 - happy], np.float32)
    return Face(Box(left, 0, side, 1.0), ("happy", "sad"), shares, np.zeros((4, 4), np.uint8))


def numbers(tracker: Tracker, time: float, *lefts: float) -> list[int]:
    return [track.number for track in tracker.update(time, [face(left) for left in lefts])]


def test_overlap_of_squares() -> None:
    assert overlap(Box(0, 0, 10, 1), Box(0, 0, 10, 1)) == 1
    assert overlap(Box(0, 0, 10, 1), Box(5, 0, 10, 1)) == pytest.approx(50 / 150)
    assert overlap(Box(0, 0, 10, 1), Box(0, 0, 5, 1)) == pytest.approx(25 / 100)
    assert overlap(Box(0, 0, 10, 1), Box(10, 0, 10, 1)) == 0


def test_a_face_keeps_its_number_wherever_it_stands_in_the_list() -> None:
    tracker = Tracker()
    assert numbers(tracker, 0.0, 0, 300) == [1, 2]
    assert numbers(tracker, 0.1, 310, 20) == [2, 1]
    assert numbers(tracker, 0.2, 40, 600) == [1, 3]
    assert numbers(tracker, 0.3, 320) == [2]


def test_the_closest_pair_is_the_same_face() -> None:
    tracker = Tracker()
    numbers(tracker, 0.0, 0)
    assert numbers(tracker, 0.1, 40, 10) == [2, 1]


def test_a_face_that_was_away_for_long_is_another_one() -> None:
    back = {}
    for away in (0.5 * GAP_SECONDS, 1.5 * GAP_SECONDS):
        tracker = Tracker()
        numbers(tracker, 0.0, 0)
        for frame in range(10):
            numbers(tracker, away * frame / 10)
        back[away > GAP_SECONDS] = numbers(tracker, away, 0)
    assert back == {False: [1], True: [2]}


def test_a_few_frames_are_never_too_long_however_far_apart() -> None:
    tracker = Tracker()
    numbers(tracker, 0.0, 0)
    for frame in range(1, GAP_FRAMES):
        assert numbers(tracker, 60.0 * frame) == []
    assert numbers(tracker, 60.0 * GAP_FRAMES, 0) == [1]


def test_after_the_time_constant_a_change_is_63_percent_through() -> None:
    tracker = Tracker(smoothing=0.5)
    tracker.update(0.0, [face(0, happy=0.0)])
    for frame in range(1, 11):
        (track,) = tracker.update(0.05 * frame, [face(0, happy=1.0)])
    assert track.shares == pytest.approx([1 - np.exp(-1), np.exp(-1)], abs=1e-5)
    one_step = Tracker(smoothing=0.5)
    one_step.update(0.0, [face(0, happy=0.0)])
    assert one_step.update(0.5, [face(0, happy=1.0)])[0].shares == pytest.approx(track.shares, abs=1e-5)


def test_without_smoothing_each_frame_is_its_own() -> None:
    tracker = Tracker()
    tracker.update(0.0, [face(0, happy=0.0)])
    assert tracker.update(0.01, [face(0, happy=0.75)])[0].shares.tolist() == [0.75, 0.25]


def test_faces_that_are_gone_are_not_kept() -> None:
    tracker = Tracker()
    for frame in range(300):
        numbers(tracker, 0.1 * frame, 1000.0 * frame)
    assert tracker.found == 300
    assert len(tracker.tracks) <= 12
