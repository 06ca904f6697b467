"""A damaged cache, or one swapped with another source's, is detected and prepared again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion.data.cache import prepare
from emotion.data.faces import Faces
from emotion.errors import UserError
from emotion.io.atomic import write_json
from emotion.io.bounded import read_json_object
from tests.counted import Tally
from tests.promises.damage import ANY

FILES = ("images.u8", "labels.u8", "usage.u8", "origin.bytes", "votes.u8", "meta.json")
DAMAGE = ("a bit flipped", "bytes gone", "cut short", "emptied")
UNDETECTED = [("meta.json", "a bit flipped"), ("meta.json", "bytes gone")]  # unless they break the JSON
CACHE = Path("cache")


@pytest.fixture
def reader(fer_votes: Path) -> dict[str, Any]:
    source = {"_target_": "emotion.data.readers.fer2013.read_csv", "path": "data/fer2013.csv"}
    return {"_target_": "emotion.data.readers.ferplus.read", "source": source, "votes": "data/ferplus_votes.csv"}


@pytest.fixture
def prepared(reader: dict[str, Any]) -> tuple[Faces, Path]:
    """The prepared faces and their cache folder; the cache also holds the faces with other votes."""
    faces = prepare(reader, CACHE)
    votes = Path(reader["votes"])
    original = votes.read_text()
    lines = original.splitlines(keepends=True)
    votes.write_text("".join([*(line.replace(",7,", ",1,") for line in lines[:9]), *lines[9:]]))
    other = prepare(reader, CACHE)
    assert other.votes is not None
    assert faces.votes is not None
    assert (other.votes != faces.votes).any()
    votes.write_text(original)
    return prepare(reader, CACHE), folder_of(faces)


def folder_of(faces: Faces) -> Path:
    assert isinstance(faces.images, np.memmap)
    assert faces.images.filename is not None
    return Path(faces.images.filename).parent


def other_folder(folder: Path) -> Path:
    (other,) = (path.parent for path in CACHE.glob("*/meta.json") if path.parent.name != folder.name)
    return other


def damage(path: Path, kind: str, seed: int) -> None:
    path.write_bytes(ANY[kind](np.random.default_rng(seed), path.read_bytes()))


def change_key(folder: Path) -> None:
    write_json(folder / "meta.json", read_json_object(folder / "meta.json") | {"key": "another"})


def swap(folder: Path) -> None:
    other = other_folder(folder)
    folder.rename("moved")
    other.rename(folder)
    Path("moved").rename(other)


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


WAYS: dict[str, Callable[[Path], object]] = {
    **{f"{name}: {kind}": lambda folder, name=name, kind=kind: damage(folder / name, kind, len(name))
       for name in FILES for kind in DAMAGE if (name, kind) not in UNDETECTED},
    **{f"{name}: of another source": lambda folder, name=name: shutil.copy(other_folder(folder) / name, folder / name)
       for name in ("labels.u8", "votes.u8", "meta.json")},
    **{f"{name}: gone": lambda folder, name=name: (folder / name).unlink() for name in FILES},
    "the folders of two sources swapped": swap,
    "meta.json: another key": change_key,
    "labels in place of usages": lambda folder: shutil.copy(folder / "labels.u8", folder / "usage.u8"),
    "meta.json nested deeply": lambda folder: (folder / "meta.json").write_text("[" * 100_000),
    "an empty folder": lambda folder: [file.unlink() for file in folder.iterdir()],
    "a file instead of the folder": replace_by_file,
    "a stamp of another path": lambda folder: [
        file.write_text(file.read_text().replace('"place": "', '"place": "0')) for file in CACHE.glob("stamps/*")
    ],
}  # fmt: skip
"""Ways to damage the folder."""


@pytest.mark.hard
@pytest.mark.promise("own files")
@pytest.mark.parametrize("part", range(4))
def test_a_damaged_cache_is_prepared_again(
    part: int, reader: dict[str, Any], prepared: tuple[Faces, Path], tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    faces, folder = prepared
    shutil.copytree(CACHE, "original")
    for way in list(WAYS)[part::4]:
        shutil.rmtree(CACHE)
        shutil.copytree("original", CACHE)
        prepare(reader, CACHE)
        capsys.readouterr()
        WAYS[way](folder)
        with tally(way):
            result = prepare(reader, CACHE)
            for name in ("images", "labels", "usage", "origin", "votes"):
                np.testing.assert_array_equal(getattr(result, name), getattr(faces, name))
            output = capsys.readouterr().out
            assert output.count("\n") == (1 if "stamp" in way else 2), output  # that it is read, and why
            assert folder_of(result) == folder


def test_a_source_that_changes_while_it_is_read_is_refused(fer_csv: Path) -> None:
    reader = {"_target_": "emotion.data.readers.fer2013.read_csv", "path": "data/fer2013.csv"}
    text = fer_csv.read_text()
    with pytest.raises(UserError, match=r"fer2013\.csv changed while it was read; try again when it is complete"):
        prepare(reader, CACHE, lambda done, expected: fer_csv.write_text(text + "\n"))
    assert not list(CACHE.glob("*/meta.json"))
