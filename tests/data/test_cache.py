"""Prepared arrays: equal to what was read, instant the second time, never half there."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from emotion.data.cache import prepare
from emotion.data.faces import Rows
from emotion.data.readers.fer2013 import PUBLISHED_MD5
from emotion.errors import UserError


def reader(path: Path) -> dict[str, str]:
    return {"_target_": "emotion.data.readers.fer2013.read_csv", "path": str(path)}


def test_prepared_faces_are_those_of_the_file(fer_csv: Path, few_faces: Rows, tmp_path: Path) -> None:
    faces = prepare(reader(fer_csv), tmp_path / "cache")
    np.testing.assert_array_equal(faces.images, few_faces.images)
    np.testing.assert_array_equal(faces.labels, few_faces.labels)
    np.testing.assert_array_equal(faces.usage, few_faces.usage)
    assert faces.origin[5].decode() == "row 5"
    assert isinstance(faces.images, np.memmap)


def test_second_time_nothing_is_read(fer_csv: Path, tmp_path: Path) -> None:
    told: list[int] = []
    for _ in range(2):
        prepare(reader(fer_csv), tmp_path / "cache", lambda done, _: told.append(done))
    assert told == [63]


def test_a_changed_file_is_prepared_anew(fer_csv: Path, tmp_path: Path) -> None:
    first = prepare(reader(fer_csv), tmp_path / "cache")
    lines = fer_csv.read_text().splitlines()
    fer_csv.write_text("\n".join(lines[:-1]))
    second = prepare(reader(fer_csv), tmp_path / "cache")
    assert (len(second), second.digest != first.digest) == (len(first) - 1, True)


def test_a_moved_file_is_known_by_its_content(fer_csv: Path, tmp_path: Path) -> None:
    prepare(reader(fer_csv), tmp_path / "cache")
    told: list[int] = []
    moved = fer_csv.rename(tmp_path / "moved.csv")
    prepare(reader(moved), tmp_path / "cache", lambda done, _: told.append(done))
    assert told == []


def test_a_refused_file_leaves_nothing_behind(fer_csv: Path, tmp_path: Path) -> None:
    fer_csv.write_text(fer_csv.read_text()[:-3000])
    with pytest.raises(UserError):
        prepare(reader(fer_csv), tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.name not in ("stamps", ".lock")] == []


def test_folder_is_prepared_too(fer_folder: Path, few_faces: Rows, tmp_path: Path) -> None:
    faces = prepare({"_target_": "emotion.data.readers.image_folder.read", "path": str(fer_folder)}, tmp_path / "cache")
    assert len(faces) == len(few_faces.labels)
    assert faces.origin[0].decode().startswith("train/angry/Training_")


def test_unwritable_cache_is_one_message(fer_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"cannot be written to .*cache_dir=FOLDER"):
        prepare(reader(fer_csv), tmp_path / "cache")


def _prepare_slowly(path: str, cache: str) -> None:
    prepare(reader(Path(path)), cache, lambda done, _: time.sleep(30))


def test_killed_preparation_leaves_nothing_broken(fer_csv: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    child = multiprocessing.get_context("spawn").Process(target=_prepare_slowly, args=(str(fer_csv), str(cache)))
    child.start()
    while not list(cache.glob("*.partial/origin.bytes")):
        time.sleep(0.02)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    assert list(cache.glob("*.partial"))
    assert len(prepare(reader(fer_csv), cache)) == 63
    assert list(cache.glob("*.partial")) == []


def _prepare(path: str, cache: str, out: str) -> None:
    Path(out).write_text(str(int(prepare(reader(Path(path)), cache).images.astype(np.int64).sum())))


def test_concurrent_preparations_agree(fer_csv: Path, few_faces: Rows, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    outs = [str(tmp_path / f"out{i}") for i in range(3)]
    children = [context.Process(target=_prepare, args=(str(fer_csv), str(tmp_path / "cache"), out)) for out in outs]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert {Path(out).read_text() for out in outs} == {str(int(few_faces.images.astype(np.int64).sum()))}
    assert len([p for p in (tmp_path / "cache").glob("*/meta.json")]) == 1


def test_damaged_stamp_is_made_again(fer_csv: Path, tmp_path: Path) -> None:
    prepare(reader(fer_csv), tmp_path / "cache")
    (stamp,) = (tmp_path / "cache" / "stamps").iterdir()
    stamp.write_text("{")
    assert len(prepare(reader(fer_csv), tmp_path / "cache")) == 63
    assert json.loads(stamp.read_text())["key"]


@pytest.mark.fer2013
def test_real_file_is_the_published_one(fer2013: Path, tmp_path: Path) -> None:
    faces = prepare(reader(fer2013), tmp_path / "cache")
    assert faces.digest == PUBLISHED_MD5
    assert faces.counts().tolist() == [
        [3995, 436, 4097, 7215, 4830, 3171, 4965],
        [467, 56, 496, 895, 653, 415, 607],
        [491, 55, 528, 879, 594, 416, 626],
        [0] * 7,
        [0] * 7,
    ]


@pytest.mark.parametrize("name", ["images.u8", "meta.json", "origin.bytes"])
def test_a_damaged_cache_is_made_again(name: str, fer_csv: Path, few_faces: Rows, tmp_path: Path) -> None:
    prepare(reader(fer_csv), tmp_path / "cache")
    (damaged,) = (tmp_path / "cache").glob(f"*/{name}")
    damaged.write_bytes(damaged.read_bytes()[:50])
    np.testing.assert_array_equal(prepare(reader(fer_csv), tmp_path / "cache").images, few_faces.images)


def test_another_format_is_prepared_anew(fer_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    for number in (1, 2):
        monkeypatch.setattr("emotion.data.cache.FORMAT", number)
        prepare(reader(fer_csv), tmp_path / "cache", lambda done, _: told.append(done))
    assert told == [63, 63]
