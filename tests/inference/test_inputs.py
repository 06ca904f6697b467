import os
from pathlib import Path

import pytest

from emotion.errors import UserError
from emotion.inference.inputs import IMAGES_OR_VIDEOS, find_files

FILES = ("b.jpg", "a.PNG", "deep/er/c.webp", "deep/clip.MP4", "notes.txt", ".hidden.jpg", ".cache/d.jpg", "deep/a.PNG")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def output_names(*names: object, output: Path | None = None) -> list[str]:
    return [str(file.output_name) for file in find_files([str(name) for name in names], output)]


def test_a_folder_is_searched_recursively(photos: Path) -> None:
    files = find_files([str(photos)])
    names = ["a.PNG", "b.jpg", "deep/a.PNG", "deep/clip.MP4", "deep/er/c.webp"]
    assert [str(file.output_name) for file in files] == names
    assert [file.is_video for file in files] == [False, False, False, True, False]
    assert all(file.path == photos / file.output_name for file in files)


def test_only_results_of_predict_are_left_out(photos: Path) -> None:
    sources = output_names(photos)
    assert output_names(photos, output=photos) == output_names(photos, output=photos.parent) == sources
    for name in ("annotated/b.jpg", "timelines/clip.png", "old/annotated/deep/b.jpg", "own/annotated/b.jpg"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).touch()
    (photos / "old/predictions.csv").touch()
    lines: list[str] = []
    found = [str(file.output_name) for file in find_files([str(photos)], photos, lines.append)]
    assert found == sorted([*sources, "own/annotated/b.jpg"])
    assert lines == [f"{photos}: skipped 1 file (1 .txt); expected {IMAGES_OR_VIDEOS}."]
    assert output_names(photos / "**/b.jpg", output=photos) == ["b.jpg", "own/annotated/b.jpg"]
    assert output_names(photos / "old/annotated") == output_names(photos / "old/annotated/**/*.jpg") == ["b.jpg"]


def test_linked_folders_are_reported(photos: Path) -> None:
    (photos / "link").symlink_to(photos / "deep")
    (photos / "notes.txt").unlink()
    lines: list[str] = []
    find_files([str(photos)], report=lines.append)
    assert lines == [f"{photos}: skipped linked folders ({photos / 'link'}); name them as sources, too."]


def test_patterns(photos: Path) -> None:
    assert output_names(photos / "*.jpg") == ["b.jpg"]
    assert output_names(photos / "**" / "*.PNG") == ["a.PNG", "deep/a.PNG"]


def test_a_file_may_have_any_name(photos: Path) -> None:
    (photos / "photo [1].jpg").touch()
    assert output_names(photos / "notes.txt") == ["notes.txt"]
    assert output_names(photos / "photo [1].jpg") == ["photo [1].jpg"]


def test_output_names_are_unique(photos: Path) -> None:
    assert output_names(photos / "deep/a.PNG", photos / "a.PNG") == ["deep/a.PNG", "a.PNG"]
    assert output_names(photos / "b.jpg", photos) == ["b.jpg", "a.PNG", "deep/a.PNG", "deep/clip.MP4", "deep/er/c.webp"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.jpg", r"nothing\.jpg does not exist; expected an image, a video, a folder, a pattern"),
        ("*.jpg", r"\*\.jpg matches none of the expected images \(\.bmp, .*\.mp4"),
        ("empty", r"empty contains none of the expected images"),
    ],
)
def test_a_name_without_files_is_reported(name: str, message: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(UserError, match=message):
        find_files([name])


@pytest.mark.parametrize(
    ("name", "checkpoint"), [("photos", "best.ckpt"), ("photos/run", "last.ckpt"), ("photos/**", "best.ckpt")]
)
def test_a_run_is_no_source(name: str, checkpoint: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = photos / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "curves.png").touch()
    (run / "checkpoints/epoch.ckpt").touch()
    assert output_names(run) == ["curves.png"]
    (run / "checkpoints" / checkpoint).touch()
    with pytest.raises(UserError, match=f"{run} is a run, .*; to use its weights: checkpoint={run}"):
        find_files([str(photos.parent / name)])
    assert output_names(run / "*.png") == ["curves.png"]
    monkeypatch.chdir(run)
    with pytest.raises(UserError, match=r"^\. is a run"):
        find_files(["."])


def test_a_pipe_is_reported(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"pipe is not a regular file; expected an image, .* - for standard input"):
        find_files([str(tmp_path / "pipe")])


def test_what_a_folder_leaves_out_is_reported(photos: Path) -> None:
    lines: list[str] = []
    find_files([str(photos)], report=lines.append)
    assert lines == [f"{photos}: skipped 1 file (1 .txt); expected {IMAGES_OR_VIDEOS}."]
    for name in ("e.heic", "f.HEIC", "LICENSE"):
        (photos / name).touch()
    find_files([f"{photos}/*"], report=lines.append)
    assert ": skipped 4 files (2 .heic, 1 .txt, 1 without suffix); " in lines[1]
