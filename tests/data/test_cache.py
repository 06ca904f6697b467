"""The cache holds exactly what was read, is instant the second time, and is never half written."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion.data import names
from emotion.data.cache import prepare
from emotion.data.faces import TEST, TRAINING, FaceChunk, Faces
from emotion.data.readers.fer2013 import PUBLISHED_MD5
from emotion.errors import UserError

CACHE = Path("cache")
context = multiprocessing.get_context("spawn")  # importing this module takes a second


def source(path: Path) -> dict[str, str]:
    return {"_target_": "emotion.data.readers.fer2013.read_csv", "path": str(path)}


def rows_read(path: Path) -> int:
    """Prepare a file; return how many rows that read."""
    progress = [0]
    prepare(source(path), CACHE, lambda done, _: progress.append(done))
    return progress[-1]


def test_prepared_faces_equal_the_file(fer_csv: Path, few_faces: FaceChunk) -> None:
    faces = prepare(source(fer_csv), CACHE)
    np.testing.assert_array_equal(faces.images, few_faces.images)
    np.testing.assert_array_equal(faces.labels, few_faces.labels)
    np.testing.assert_array_equal(faces.usage, few_faces.usage)
    assert faces.origin[5].decode() == "row 5"
    assert isinstance(faces.images, np.memmap)


def test_a_source_is_read_once_wherever_it_moves(fer_csv: Path) -> None:
    assert [rows_read(fer_csv), rows_read(fer_csv)] == [63, 0]
    assert rows_read(fer_csv.rename("moved.csv")) == 0


def test_a_file_whose_new_name_states_another_part_is_read_again(fer_csv: Path) -> None:
    lines = [line.rpartition(",")[0] for line in fer_csv.read_text().splitlines()]
    for name in ("train", "test"):
        Path(name).mkdir()
        Path(name, f"{name}.csv").write_text("\n".join(lines))
    usages = [{*prepare(source(Path(name, f"{name}.csv")), CACHE).usage.tolist()} for name in ("train", "test")]
    assert usages == [{TRAINING}, {TEST}]


def test_a_source_whose_classes_get_other_names_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AN", "NE"):
        Path("faces", name).mkdir(parents=True)
        Image.new("L", (48, 48)).save(f"faces/{name}/a.png")
    folder = {"_target_": "emotion.data.readers.image_folder.read", "path": "faces"}
    with monkeypatch.context() as former:
        former.setattr(names, "CODES", {})
        assert prepare(folder, CACHE).classes == ("AN", "NE")
    assert prepare(folder, CACHE).classes == ("angry", "neutral")


def test_images_without_a_face_are_counted_whenever_the_cache_is_opened() -> None:
    for name in ("happy/a.png", "happy/b.png", "sad/c.png"):
        Path("faces", name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (64, 64), 90).save(f"faces/{name}")
    folder = {"_target_": "emotion.data.readers.image_folder.read", "path": "faces"}
    detecting = folder | {"detector": {"_target_": "emotion.inference.detectors.Haar"}}
    note = "no face was found in 3 images, such as happy/a.png: the central square is used"
    for _ in range(2):
        assert note in prepare(detecting, CACHE).notes
    assert note not in prepare(folder, CACHE).notes


def test_a_changed_file_is_prepared_again(fer_csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = prepare(source(fer_csv), CACHE)
    fer_csv.write_text("\n".join(fer_csv.read_text().splitlines()[:-1]))
    second = prepare(source(fer_csv), CACHE)
    prepare(source(fer_csv), CACHE)
    assert (len(second), second.digest != first.digest) == (len(first) - 1, True)
    reading = f"reading {fer_csv} ..."
    said = capsys.readouterr().out.splitlines()
    assert said == [reading, reading, f"{fer_csv} has changed since it was last prepared."]


def test_a_refused_file_leaves_nothing_behind(fer_csv: Path) -> None:
    fer_csv.write_text(fer_csv.read_text()[:-3000])
    with pytest.raises(UserError):
        prepare(source(fer_csv), CACHE)
    assert {path.name for path in CACHE.iterdir()} <= {"stamps", ".lock"}


def test_an_image_folder_is_prepared_too(fer_folder: Path, few_faces: FaceChunk) -> None:
    faces = prepare({"_target_": "emotion.data.readers.image_folder.read", "path": str(fer_folder)}, CACHE)
    assert len(faces) == len(few_faces.labels)
    assert faces.origin[0].decode().startswith("train/angry/Training_")


def test_an_unwritable_cache_is_reported(fer_csv: Path) -> None:
    CACHE.write_text("a file instead of a folder")
    with pytest.raises(UserError, match=r"cannot be written: .*cache_dir=FOLDER"):
        prepare(source(fer_csv), CACHE)


def _prepare_slowly(path: str) -> None:
    prepare(source(Path(path)), CACHE, lambda done, _: time.sleep(30))


def test_a_killed_preparation_leaves_nothing_broken(fer_csv: Path) -> None:
    child = context.Process(target=_prepare_slowly, args=(str(fer_csv),))
    child.start()
    while not list(CACHE.glob("*.partial/origin.bytes")):
        time.sleep(0.02)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    assert list(CACHE.glob("*.partial"))
    assert len(prepare(source(fer_csv), CACHE)) == 63
    assert list(CACHE.glob("*.partial")) == []


def _prepare(path: str, out: str) -> None:
    Path(out).write_text(str(int(prepare(source(Path(path)), CACHE).images.astype(np.int64).sum())))


def test_concurrent_preparations_agree(fer_csv: Path, few_faces: FaceChunk) -> None:
    children = [context.Process(target=_prepare, args=(str(fer_csv), f"out{i}")) for i in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert {Path(f"out{i}").read_text() for i in range(3)} == {str(int(few_faces.images.astype(np.int64).sum()))}
    assert len(list(CACHE.glob("*/meta.json"))) == 1


def test_a_damaged_stamp_is_written_again(fer_csv: Path) -> None:
    prepare(source(fer_csv), CACHE)
    (stamp,) = (CACHE / "stamps").iterdir()
    stamp.write_text("{")
    assert len(prepare(source(fer_csv), CACHE)) == 63
    assert json.loads(stamp.read_text())["key"]


@pytest.mark.parametrize("name", ["images.u8", "meta.json", "origin.bytes"])
def test_a_damaged_cache_is_rebuilt(name: str, fer_csv: Path, few_faces: FaceChunk) -> None:
    prepare(source(fer_csv), CACHE)
    (damaged,) = CACHE.glob(f"*/{name}")
    damaged.write_bytes(damaged.read_bytes()[:50])
    np.testing.assert_array_equal(prepare(source(fer_csv), CACHE).images, few_faces.images)


def test_another_format_is_prepared_again(fer_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows_read(fer_csv) == 63
    monkeypatch.setattr("emotion.data.cache.FORMAT", 1)
    assert rows_read(fer_csv) == 63


def test_digests_are_those_of_the_first_layout() -> None:
    """Runs and checkpoints of earlier versions store them."""
    synthetic = {"_target_": "emotion.data.readers.synthetic.read", "training": 1, "public_test": 0, "private_test": 0}
    concat = {"_target_": "emotion.data.readers.concat.read", "source": synthetic, "extra": synthetic | {"seed": 1}}
    assert prepare(synthetic, CACHE).digest == "42f91c1938f247414036e90dcd41a8c4"
    assert prepare(concat, CACHE).digest == "a6b9aa76b35959c03bf5338816fd6820"


@pytest.mark.fer2013
def test_the_real_file_is_the_published_one(fer2013_faces: Faces) -> None:
    assert fer2013_faces.digest == PUBLISHED_MD5
    assert fer2013_faces.counts().tolist() == [
        [3995, 436, 4097, 7215, 4830, 3171, 4965],
        [467, 56, 496, 895, 653, 415, 607],
        [491, 55, 528, 879, 594, 416, 626],
        [0] * 7,
        [0] * 7,
    ]
