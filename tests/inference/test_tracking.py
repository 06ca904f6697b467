import numpy as np
import pytest

from emotion.data.crop import Box
from emotion.inference.predictor import Face
from emotion.inference.tracking import GAP_FRAMES, GAP_SECONDS, Tracker, iou


def face(left: float, happy: float = 1.0, side: float = 100.0) -> Face:
    probs = np.array([happy, 1 - happy], np.float32)
    return Face(Box(left, 0, side, 1.0), ("happy", "sad"), probs, np.zeros((4, 4), np.uint8))


def update(tracker: Tracker, time: float, *lefts: float) -> list[int]:
    """Return the track numbers of faces at these positions."""
    return [track.number for track in tracker.update(time, [face(left) for left in lefts])]


def test_iou_of_squares() -> None:
    assert iou(Box(0, 0, 10, 1), Box(0, 0, 10, 1)) == 1
    assert iou(Box(0, 0, 10, 1), Box(5, 0, 10, 1)) == pytest.approx(50 / 150)
    assert iou(Box(0, 0, 10, 1), Box(0, 0, 5, 1)) == pytest.approx(25 / 100)
    assert iou(Box(0, 0, 10, 1), Box(10, 0, 10, 1)) == 0
    assert iou(Box(0, 0, 10, 1), Box(20, 20, 10, 1)) == iou(Box(20, 0, 10, 1), Box(0, 20, 10, 1)) == 0
    assert iou(Box(3, 1, 10, 1), Box(1, 5, 12, 1)) == pytest.approx(10 * 6 / (100 + 144 - 60))
    assert iou(Box(1, 5, 12, 1), Box(3, 1, 10, 1)) == pytest.approx(10 * 6 / (100 + 144 - 60))


def test_a_face_is_the_same_from_an_overlap_of_30_percent() -> None:
    """Squares of 100, moved by 53 and 54: IoU 47 / 153 = 0.307 and 46 / 154 = 0.299."""
    for left, number in ((53, 1), (54, 2)):
        tracker = Tracker()
        update(tracker, 0.0, 0)
        assert update(tracker, 0.1, left) == [number]


def test_a_face_keeps_its_number_in_any_order() -> None:
    tracker = Tracker()
    assert update(tracker, 0.0, 0, 300) == [1, 2]
    assert update(tracker, 0.1, 310, 20) == [2, 1]
    assert update(tracker, 0.2, 40, 600) == [1, 3]
    assert update(tracker, 0.3, 320) == [2]


def test_a_face_is_followed_from_frame_to_frame_and_not_from_its_first_place() -> None:
    tracker = Tracker()
    assert [update(tracker, 0.1 * i, 50 * i) for i in range(6)] == [[1]] * 6
    assert tracker.tracks[0].box.left == 250
    assert update(tracker, 0.6, 0) == [2]


def test_an_absence_is_counted_from_the_last_sight() -> None:
    tracker = Tracker()
    for i in range(20):
        update(tracker, i * GAP_SECONDS / 4, 0)
    for i in range(20, 20 + GAP_FRAMES):
        update(tracker, i * GAP_SECONDS / 4)
    assert update(tracker, 23 * GAP_SECONDS / 4, 0) == [1]
    assert (tracker.tracks[0].time, tracker.tracks[0].missed) == (23 * GAP_SECONDS / 4, 0)


def test_the_best_pair_is_matched_first() -> None:
    tracker = Tracker()
    update(tracker, 0.0, 0)
    assert update(tracker, 0.1, 40, 10) == [2, 1]


@pytest.mark.parametrize(("absence", "number"), [(0.5 * GAP_SECONDS, 1), (1.5 * GAP_SECONDS, 2)])
def test_a_face_absent_for_long_gets_a_new_number(absence: float, number: int) -> None:
    tracker = Tracker()
    update(tracker, 0.0, 0)
    for i in range(10):
        update(tracker, absence * i / 10)
    assert update(tracker, absence, 0) == [number]


def test_a_face_absent_for_few_frames_keeps_its_number_at_any_frame_rate() -> None:
    tracker = Tracker()
    update(tracker, 0.0, 0)
    for i in range(1, GAP_FRAMES):
        assert update(tracker, 60.0 * i) == []
    assert update(tracker, 60.0 * GAP_FRAMES, 0) == [1]
    for i in range(1, GAP_FRAMES + 1):
        assert update(tracker, 60.0 * (GAP_FRAMES + i)) == []
    assert update(tracker, 60.0 * (2 * GAP_FRAMES + 1), 0) == [2]


def test_smoothing_reaches_63_percent_after_its_time_constant_at_any_frame_rate() -> None:
    for steps in (10, 1):
        tracker = Tracker(smoothing=0.5)
        tracker.update(0.0, [face(0, happy=0.0)])
        for i in range(1, steps + 1):
            (track,) = tracker.update(0.5 * i / steps, [face(0, happy=1.0)])
        assert track.probs == pytest.approx([1 - np.exp(-1), np.exp(-1)], abs=1e-5)


def test_without_smoothing_probabilities_are_unchanged() -> None:
    tracker = Tracker()
    tracker.update(0.0, [face(0, happy=0.0)])
    assert tracker.update(0.01, [face(0, happy=0.75)])[0].probs.tolist() == [0.75, 0.25]


def test_old_tracks_are_dropped() -> None:
    tracker = Tracker()
    for i in range(300):
        update(tracker, 0.1 * i, 1000.0 * i)
    assert tracker.num_tracks == 300
    assert len(tracker.tracks) <= 12
