from pathlib import Path

import numpy as np
import pytest

from emotion.errors import UserError
from emotion.inference.video import Film
from tests.inference.videos import read

PATH = Path("x.mp4")


def shade(level: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), (level, level, 0), np.uint8)


def levels() -> list[float]:
    return [float(frame[..., 0].mean()) for frame in read(PATH)]


def test_an_even_video_has_the_same_frames() -> None:
    with Film(PATH, 25) as film:
        for number in range(30):
            film.add(shade(8 * number), number / 25)
    assert film.done
    assert levels() == pytest.approx([8 * number for number in range(30)], abs=6)
    assert np.abs(read(PATH)[20].mean((0, 1)) - [160, 160, 0]).max() < 8


def test_a_picture_stands_until_the_time_of_the_next() -> None:
    with Film(PATH, 10) as film:
        for level, time in ((0, 3.0), (100, 3.5), (150, 3.52), (200, 3.6)):
            film.add(shade(level), time)
    assert levels() == pytest.approx([0, 0, 0, 0, 0, 150, 200], abs=6)


def test_it_is_whole_when_it_is_left_early() -> None:
    def stopped() -> None:
        with Film(PATH, 10) as film:
            for number in range(5):
                assert not PATH.exists()
                film.add(shade(50 * number), number / 10)
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        stopped()
    assert len(read(PATH)) == 5
    assert [path.name for path in Path.cwd().iterdir()] == ["x.mp4"]


def test_without_pictures_there_is_no_file() -> None:
    with Film(PATH, 10) as film:
        pass
    assert not film.done
    assert not list(Path.cwd().iterdir())


def test_pictures_of_another_size_are_fitted() -> None:
    with Film(PATH, 10) as film:
        film.add(shade(10), 0.0)
        film.add(shade(200, 100, 30), 0.1)
    assert [frame.shape for frame in read(PATH)] == [(48, 64, 3)] * 2


def test_odd_sides_lose_a_line() -> None:
    with Film(PATH, 0.01) as film:
        film.add(shade(10, 49, 65), 0.0)
    assert [frame.shape for frame in read(PATH)] == [(48, 64, 3)]


def test_a_place_that_cannot_be_written_is_one_message(capfd: pytest.CaptureFixture[str]) -> None:
    film = Film(Path("nowhere/x.mp4"), 10)
    with film, pytest.raises(UserError, match=r"nowhere/x\.mp4 cannot be written by OpenCV; annotate=false"):
        film.add(shade(10), 0.0)
    assert capfd.readouterr().err == ""
