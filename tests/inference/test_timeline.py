from pathlib import Path

import numpy as np
import pytest

from emotion.inference.detectors import Box
from emotion.inference.frames import Frame, Seen
from emotion.inference.predictor import Face
from emotion.inference.timeline import BINS, KEPT, SURE, Timeline, clock

CLASSES = ("happy", "sad", "neutral")
PIXELS = np.zeros((2, 2, 3), np.uint8)


def one(time: float, **faces: float) -> Seen:
    """A frame with faces by number (face1=0.8: happy by so much, else sad)."""
    found = [
        Face(Box(0, 0, 1, 1), CLASSES, np.array([happy, 1 - happy, 0], np.float32), PIXELS) for happy in faces.values()
    ]
    return Seen(Frame("clip", Path("clip"), PIXELS, 0, time), found, [int(name[4:]) for name in faces])


def test_means_and_lengths_stay_while_stretches_of_time_become_one() -> None:
    timeline, happy = Timeline(CLASSES), np.random.default_rng(0).random(5000)
    for number, share in enumerate(happy):
        timeline.add(one(number / 10, face1=share))
    (history,) = timeline.longest(4)
    assert history.length == timeline.frames == 5000
    assert history.mean == pytest.approx([happy.mean(), 1 - happy.mean(), 0], abs=1e-5)
    assert (history.first, history.last, timeline.end) == (0, 499.9, 499.9)
    ((times, shares),) = history.parts(gap=5)
    assert BINS / 2 < len(times) <= BINS
    assert np.all(np.diff(times) > 0)
    place = int(100 / timeline.width)
    own = [share for number, share in enumerate(happy) if int(number / 10 / timeline.width) == place]
    assert shares[place, 0] == pytest.approx(np.mean(own), abs=1e-5)


def test_a_day_takes_no_more_memory_than_a_minute() -> None:
    timeline = Timeline(CLASSES)
    for number in range(3000):
        timeline.add(one(28.8 * number, face0=0.5, **{f"face{1 + number}": 0.5}))
    assert timeline.numbers == 3001
    assert len(timeline.histories) <= KEPT
    assert {len(history.frames) for history in timeline.histories.values()} == {BINS}


def test_the_longest_faces_are_kept_and_so_are_the_latest() -> None:
    timeline = Timeline(CLASSES)
    for number in range(SURE):
        for step in range(5):
            timeline.add(one(step, **{f"face{number}": 0.5}))
    for number in range(100, 300):
        timeline.add(one(number, **{f"face{number}": 0.5}))
    assert set(range(SURE)) <= set(timeline.histories)
    assert max(timeline.histories) == 299
    for step in range(50):
        timeline.add(one(300 + step, face299=0.5))
    assert timeline.longest(1)[0].number == 299


def test_a_face_that_was_away_has_two_parts() -> None:
    timeline = Timeline(CLASSES)
    for tenth in (*range(20), *range(50, 60)):
        timeline.add(one(tenth / 10, face1=0.5))
    parts = timeline.longest(1)[0].parts(gap=1.0)
    assert [(times[0], times[-1]) for times, _ in parts] == [
        pytest.approx((0, 1.9), abs=0.02),
        pytest.approx((5, 5.9), abs=0.02),
    ]


def test_faces_are_drawn_one_below_the_other_in_the_colours_of_their_classes() -> None:
    timeline = Timeline(CLASSES)
    for tenth in range(100):
        timeline.add(one(tenth / 10, face1=0.9, **({"face2": 0.2} if 20 < tenth < 60 else {})))
    timeline.add(one(10, face3=0.5))
    figure = timeline.drawn("clip: a network")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["face 1: happy 90 % on average", "face 2: sad 80 % on average", "face 3: happy 50 % on average"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["neutral", "sad", "happy"]


def test_a_clock_reads_as_people_read_it() -> None:
    assert [clock(0), clock(75), clock(7200), clock(7.54, tenths=True)] == ["0:00", "1:15", "2:00:00", "0:07.5"]
