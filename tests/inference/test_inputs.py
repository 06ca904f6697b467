from pathlib import Path

import pytest

from emotion.errors import UserError
from emotion.inference.inputs import files


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    names = (
        "b.jpg",
        "a.PNG",
        "deep/er/c.webp",
        "deep/clip.MP4",
        "notes.txt",
        ".hidden.jpg",
        ".cache/d.jpg",
        "deep/a.PNG",
    )
    for name in names:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def kept(*names: object, besides: Path | None = None) -> list[str]:
    return [str(file.kept) for file in files([str(name) for name in names], besides)]


def test_a_folder_is_all_pictures_and_videos_below_it(photos: Path) -> None:
    found = files([str(photos)])
    assert [str(file.kept) for file in found] == ["a.PNG", "b.jpg", "deep/a.PNG", "deep/clip.MP4", "deep/er/c.webp"]
    assert [file.video for file in found] == [False, False, False, True, False]
    assert all(file.path == photos / file.kept for file in found)


def test_a_pattern_is_what_fits_it(photos: Path) -> None:
    assert kept(photos / "*.jpg") == ["b.jpg"]
    assert kept(photos / "**" / "*.PNG") == ["a.PNG", "deep/a.PNG"]


def test_a_file_is_taken_whatever_it_is_called(photos: Path) -> None:
    assert kept(photos / "notes.txt") == ["notes.txt"]
    odd = photos / "photo [1].jpg"
    odd.touch()
    assert kept(odd) == ["photo [1].jpg"]


def test_no_two_results_have_one_name(photos: Path) -> None:
    assert kept(photos / "deep/a.PNG", photos / "a.PNG") == ["deep/a.PNG", "a.PNG"]
    assert kept(photos / "b.jpg", photos) == ["b.jpg", "a.PNG", "deep/a.PNG", "deep/clip.MP4", "deep/er/c.webp"]


def test_the_results_are_no_source(photos: Path) -> None:
    assert kept(photos, besides=photos / "deep") == ["a.PNG", "b.jpg"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.jpg", r"nothing\.jpg is not there; expected a picture, a video, a folder, a pattern"),
        ("*.jpg", r"\*\.jpg fits nothing to judge; expected pictures \(\.bmp, .*\.mp4"),
        ("empty", r"empty holds nothing to judge"),
    ],
)
def test_a_name_that_stands_for_nothing_says_what_may_be_given(name: str, message: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(UserError, match=message):
        files([name])
