"""A source that is damaged after preparation gives the same faces or one message, for 200 damages of each format."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from emotion.data.cache import prepare
from emotion.data.faces import EMOTIONS, FaceChunk, Faces
from emotion.errors import UserError
from tests.conftest import csv_lines, made_votes, write_votes
from tests.counted import Tally
from tests.promises.damage import PICTURE, TEXT, Random, damage_content, damage_folder

ROOT = Path("data/source")
CHANGED = "has changed since it was last prepared."


class Format(NamedTuple):
    """A source's format: how to write it, how to read it, and how to damage it by number."""

    make: Callable[[FaceChunk], object]
    reader: dict[str, Any]
    damage: Callable[[int, Random], str]


def _pictures(folder: str = ".") -> list[Path]:
    return sorted((ROOT / folder).rglob("*.png"))


def _csv(layout: str, name: str) -> Callable[[FaceChunk], object]:
    return lambda faces: (ROOT / name).write_text("\n".join(csv_lines(faces, layout)) + "\n")


def _folder(faces: FaceChunk) -> None:
    for row, (image, label, usage, _) in enumerate(zip(*faces[:4], strict=True)):
        place = ROOT / ("train" if usage == 0 else "test") / EMOTIONS[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{('Training', 'PublicTest', 'PrivateTest')[usage]}_{row:03}.png")


def _voted(faces: FaceChunk) -> None:
    _csv("emotion,pixels,Usage", "fer2013.csv")(faces)
    write_votes(ROOT / "votes.csv", made_votes(faces), faces.usage)


def _lists(faces: FaceChunk) -> None:
    (ROOT / "images").mkdir()
    lists = [["path,label"], ["path,label"], ["path,label"]]
    for row, (image, label, usage, _) in enumerate(zip(*faces[:4], strict=True)):
        Image.fromarray(image).save(ROOT / f"images/{row:03}.png")
        lists[usage].append(f"images/{row:03}.png,{EMOTIONS[label] if row % 2 else label}")
    for name, lines in zip(("train", "val", "test"), lists, strict=True):
        (ROOT / f"{name}.csv").write_text("\n".join(lines) + "\n")
    names = ", ".join(f'"{name}": {index}' for index, name in enumerate(EMOTIONS))
    (ROOT / "label_map.json").write_text(f"{{{names}}}")


def _in_csv(name: str) -> Callable[[int, Random], str]:
    return lambda number, rng: damage_content(TEXT, number, rng, [ROOT / name])


def _in_folder(number: int, rng: Random) -> str:
    if number % 2:
        return damage_folder(number // 2, rng, _pictures())
    return damage_content(PICTURE, number // 2, rng, _pictures())


def _in_votes(number: int, rng: Random) -> str:
    return damage_content(TEXT, number // 2, rng, [ROOT / ("votes.csv" if number % 4 else "fer2013.csv")])


def _in_lists(number: int, rng: Random) -> str:
    texts = [ROOT / name for name in ("train.csv", "val.csv", "test.csv", "label_map.json")]
    if number % 4 < 2:
        return damage_content(TEXT, number // 4 + number, rng, texts)
    if number % 4 == 2:
        return damage_folder(number // 4, rng, [*texts, *_pictures()])
    return damage_content(PICTURE, number // 4, rng, _pictures())


CSV = {"_target_": "emotion.data.readers.fer2013.read_csv", "path": "data/source/fer2013.csv"}
FORMATS = {
    "csv": Format(_csv("emotion,pixels,Usage", "fer2013.csv"), CSV, _in_csv("fer2013.csv")),
    "icml": Format(
        _csv("emotion, Usage, pixels", "icml_face_data.csv"),
        {"_target_": "emotion.data.readers.fer2013.read_icml_csv", "path": "data/source/icml_face_data.csv"},
        _in_csv("icml_face_data.csv"),
    ),
    "folder": Format(
        _folder, {"_target_": "emotion.data.readers.image_folder.read", "path": "data/source"}, _in_folder
    ),
    "ferplus": Format(
        _voted,
        {"_target_": "emotion.data.readers.ferplus.read", "source": CSV, "votes": "data/source/votes.csv"},
        _in_votes,
    ),
    "path list": Format(
        _lists,
        {"_target_": "emotion.data.readers.path_list.read", "size": 48, "channels": 1}
        | {part: f"data/source/{part}.csv" for part in ("train", "val", "test")},
        _in_lists,
    ),
}


@pytest.fixture
def faces(few_faces: FaceChunk) -> FaceChunk:
    """Return every third face: one of each class and usage."""
    return FaceChunk(*(part[::3] for part in few_faces[:3]), few_faces.origin[::3])


def equal(one: Faces, other: Faces) -> bool:
    columns = ("images", "labels", "usage", "origin", "votes")
    return one.classes == other.classes and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in columns
    )


def prepare_again(reader: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> tuple[Faces | None, str]:
    """Return the faces and the output, or None and the error message."""
    try:
        faces = prepare(reader, "cache")
    except UserError as error:
        return None, str(error)
    return faces, capsys.readouterr().out


@pytest.mark.hard
@pytest.mark.promise("data")
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_data_gives_the_same_faces_or_one_message(
    name: str, part: int, faces: FaceChunk, tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    source = FORMATS[name]
    ROOT.mkdir(parents=True)
    source.make(faces)
    shutil.copytree(ROOT, "whole")
    whole = prepare(source.reader, "cache")
    for number in range(50 * part, 50 * (part + 1)):
        shutil.rmtree("data")
        shutil.copytree("whole", ROOT)
        prepare(source.reader, "cache")
        capsys.readouterr()
        kind = source.damage(number, np.random.default_rng([list(FORMATS).index(name), number]))
        with tally(f"{name} {number}, {kind}"):
            result, message = prepare_again(source.reader, capsys)
            if result is None:
                assert str(ROOT) in message
                assert "emotion.data" not in message, f"a message for programmers: {message}"
            else:
                assert equal(result, whole) or CHANGED in message
                assert message.count("\n") <= 2  # that it is read, and why
