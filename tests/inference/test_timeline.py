from pathlib import Path

import numpy as np
import pytest

from emotion.data.crop import Box
from emotion.inference.frames import Frame, FrameResult
from emotion.inference.predictor import Face
from emotion.inference.timeline import MAX_FACES, MAX_LONGEST, NUM_BINS, Timeline, format_clock

CLASSES = ("happy", "sad", "neutral")
PIXELS = np.zeros((2, 2, 3), np.uint8)


def result(time: float, **faces: float) -> FrameResult:
    """A frame with faces by number: face1=0.8 is happy with that probability, otherwise sad."""
    found = [
        Face(Box(0, 0, 1, 1), CLASSES, np.array([happy, 1 - happy, 0], np.float32), PIXELS) for happy in faces.values()
    ]
    return FrameResult(Frame("clip", Path("clip"), PIXELS, 0, time), found, [int(name[4:]) for name in faces])


def test_means_and_times_are_exact_after_bins_are_merged() -> None:
    timeline, happy = Timeline(CLASSES), np.random.default_rng(0).random(5000)
    for i, probability in enumerate(happy):
        timeline.add(result(i / 10, face1=probability))
    (history,) = timeline.longest(4)
    assert history.num_frames == timeline.num_frames == 5000
    assert history.mean_probs == pytest.approx([happy.mean(), 1 - happy.mean(), 0], abs=1e-5)
    assert (history.start, history.end, timeline.end) == (0, 499.9, 499.9)
    ((times, probs),) = history.segments(gap=5)
    assert NUM_BINS / 2 < len(times) <= NUM_BINS
    assert np.all(np.diff(times) > 0)
    index = int(100 / timeline.bin_width)
    expected = [p for i, p in enumerate(happy) if int(i / 10 / timeline.bin_width) == index]
    assert probs[index, 0] == pytest.approx(np.mean(expected), abs=1e-5)


def test_memory_does_not_grow_with_the_video() -> None:
    timeline = Timeline(CLASSES)
    for i in range(3000):
        timeline.add(result(28.8 * i, face0=0.5, **{f"face{1 + i}": 0.5}))
    assert timeline.num_faces == 3001
    assert len(timeline.histories) <= MAX_FACES
    assert {len(history.frames) for history in timeline.histories.values()} == {NUM_BINS}


def test_the_longest_and_the_latest_faces_are_kept() -> None:
    timeline = Timeline(CLASSES)
    for number in range(MAX_LONGEST):
        for step in range(5):
            timeline.add(result(step, **{f"face{number}": 0.5}))
    for number in range(100, 300):
        timeline.add(result(number, **{f"face{number}": 0.5}))
    assert set(range(MAX_LONGEST)) <= set(timeline.histories)
    assert max(timeline.histories) == 299
    for step in range(50):
        timeline.add(result(300 + step, face299=0.5))
    assert timeline.longest(1)[0].number == 299


def test_an_absence_splits_a_face_into_segments() -> None:
    timeline = Timeline(CLASSES)
    for tenth in (*range(20), *range(50, 60)):
        timeline.add(result(tenth / 10, face1=0.5))
    (first, _), (second, _) = timeline.longest(1)[0].segments(gap=1.0)
    assert (first[0], first[-1]) == pytest.approx((0, 1.9), abs=0.02)
    assert (second[0], second[-1]) == pytest.approx((5, 5.9), abs=0.02)


def test_the_plot_has_one_axes_per_face() -> None:
    timeline = Timeline(CLASSES)
    for tenth in range(100):
        timeline.add(result(tenth / 10, face1=0.9, **({"face2": 0.2} if 20 < tenth < 60 else {})))
    timeline.add(result(10, face3=0.5))
    figure = timeline.plot("clip: a network")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["face 1: happy 90 % on average", "face 2: sad 80 % on average", "face 3: happy 50 % on average"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["neutral", "sad", "happy"]
    assert figure.get_suptitle() == "clip: a network"
    assert timeline.plot("clip", max_faces=2).get_suptitle() == "clip; the 2 longest of 3 faces"


def test_format_clock() -> None:
    texts = [format_clock(0), format_clock(75), format_clock(7200), format_clock(7.54, tenths=True)]
    assert texts == ["0:00", "1:15", "2:00:00", "0:07.5"]
