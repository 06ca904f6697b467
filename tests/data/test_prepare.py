"""One screen says what a folder holds, what is read and what is left out."""

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from emotion.config.compose import compose
from emotion.data.faces import EMOTIONS, FaceChunk, Faces
from emotion.errors import UserError
from emotion.prepare import run
from tests.conftest import csv_lines
from tests.data.readers.test_fer2013 import ICML

SCREEN = 24  # lines


def text(name: str, content: str) -> None:
    Path("d", name).parent.mkdir(parents=True, exist_ok=True)
    Path("d", name).write_text(content, encoding="utf-8")


def lines(faces: FaceChunk, layout: str = "emotion,pixels,Usage") -> str:
    return "\n".join(csv_lines(faces, layout)) + "\n"


def quoted(faces: FaceChunk) -> str:
    return "\n".join(f'"{line}"'.replace(",", '","') for line in csv_lines(faces))


def packed(faces: FaceChunk, name: str) -> None:
    Path("d").mkdir()
    if name.endswith(".gz"):
        Path("d", name).write_bytes(gzip.compress(lines(faces).encode()))
    else:
        with zipfile.ZipFile(f"d/{name}", "w") as archive:
            archive.writestr("fer2013/fer2013.csv", lines(faces))


def pair(faces: FaceChunk) -> None:
    rows = [line.split(",") for line in csv_lines(faces)]
    text("train.csv", "\n".join(f'{row[0]},"{row[1]}"' for row in rows if row[2] in ("Usage", "Training")))
    text("test.csv", "\n".join(f'"{row[1]}"' for row in rows if row[2] != "Training"))


def folders(
    faces: FaceChunk, *, size: int = 48, mode: str = "L", ending: str = "png", parts: str = "train test test",
    names: tuple[str, ...] = EMOTIONS,
) -> None:  # fmt: skip
    for row, (pixels, label, usage, _) in enumerate(zip(*faces[:4], strict=True)):
        path = Path("d", parts.split()[usage], names[label], f"im{row}.{ending}")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((size, size)).convert(mode).save(path)


def parquet(faces: FaceChunk) -> None:
    Path("d").mkdir()
    for usage, part in enumerate(("train", "validation", "test")):
        rows = np.flatnonzero(faces.usage == usage)
        files = [io.BytesIO() for _ in rows]
        for file, row in zip(files, rows, strict=True):
            Image.fromarray(faces.images[row]).save(file, "PNG")
        cells = [{"bytes": file.getvalue(), "path": None} for file in files]
        pq.write_table(pa.table({"image": cells, "label": faces.labels[rows]}), f"d/{part}-0.parquet")


CLASSES = ("mad", "ill", "shy", "glad", "low", "awed", "calm")
PARTS, MERGED = (21, 21, 21), (21, 42)
SITUATIONS: dict[str, tuple[Callable[[FaceChunk], object], tuple[int, ...], list[str]]] = {
    "plain": (lambda f: text("fer2013.csv", lines(f)), PARTS, ["d/fer2013.csv: MD5", "NOT the published file"]),
    "gz": (lambda f: packed(f, "fer2013.csv.gz"), PARTS, ["d/fer2013.csv.gz: MD5"]),
    "zip": (lambda f: packed(f, "archive.zip"), PARTS, ["d/archive.zip: "]),
    "mark": (lambda f: text("fer2013.csv", "\ufeff" + lines(f)), PARTS, ["d/fer2013.csv"]),
    "quoted": (lambda f: text("fer2013.csv", quoted(f)), PARTS, []),
    "pair": (pair, (21,), ["left out: test.csv, whose faces have no labels", "no column Usage: train.csv is Training"]),
    "icml": (lambda f: text("icml_face_data.csv", lines(f, ICML)), PARTS, ["d/icml_face_data.csv"]),
    "two": (lambda f: (text("fer2013.csv", lines(f)), folders(f)), PARTS, ["not read: d (data=image_folder)"]),
    "48": (folders, MERGED, []),
    "224": (lambda f: folders(f, size=224), MERGED, ["are 224x224 gray, read as 48x48 gray"]),
    "RGB": (lambda f: folders(f, mode="RGB", ending="jpg"), MERGED, ["are 48x48 color, read as 48x48 gray"]),
    "tif": (lambda f: folders(f, ending="tif"), MERGED, []),
    "jfif": (lambda f: folders(f, ending="jfif"), MERGED, []),
    "pgm": (lambda f: folders(f, ending="pgm"), MERGED, []),
    "gif": (lambda f: folders(f, ending="gif"), MERGED, []),
    "val": (lambda f: folders(f, parts="train val test"), PARTS, ["val as PublicTest, test as PrivateTest"]),
    "nouns": (lambda f: folders(f, names=tuple(name.upper() for name in EMOTIONS)), MERGED, ["ANGRY as angry"]),
    "parquet": (parquet, PARTS, ["validation-0.parquet: 21 rows as PublicTest"]),
    "own classes": (lambda f: folders(f, names=CLASSES), MERGED, ["awed", "calm"]),
}


def prepared(capsys: pytest.CaptureFixture[str], *overrides: str) -> tuple[Faces, str]:
    faces = run(compose("prepare", "data_dir=d", *overrides))
    return faces, capsys.readouterr().out


@pytest.mark.parametrize("situation", SITUATIONS)
def test_prepare_says_what_it_found_and_left_out(
    situation: str, few_faces: FaceChunk, capsys: pytest.CaptureFixture[str]
) -> None:
    make, counts, said = SITUATIONS[situation]
    make(few_faces)
    faces, output = prepared(capsys)
    assert f"{sum(counts)} faces of 48x48" in output
    assert tuple(n for n in faces.counts().sum(1).tolist() if n) == counts
    for words in said:
        assert words in output
    assert "SYNTHETIC" not in output
    assert output.count("\n") <= SCREEN


def image(name: str) -> None:
    Path("d", name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (9, 9)).save(Path("d", name))


def images_in_zip() -> None:
    image("x.png")
    with zipfile.ZipFile("d/archive.zip", "w") as archive:
        archive.write("d/x.png", "train/sad/x.png")
    Path("d/x.png").unlink()


NEAR_MISSES: dict[str, tuple[Callable[[], object], str]] = {
    "nothing": (lambda: None, "^d does not exist. Expected fer2013.csv or"),
    "empty": (lambda: Path("d").mkdir(), "^d is empty. Expected"),
    "another archive": (lambda: text("fer2013.rar", "x"), r"fer2013.rar: unpack it"),
    "images in an archive": (images_in_zip, "archive.zip with images such as train/sad/x.png: unpack it"),
    "a list": (lambda: text("train.csv", "path,label\na.png,sad\n"), "train.csv, a list of images: data=path_list"),
    "no labels": (lambda: text("test.csv", "pixels\n1 2\n"), "test.csv with pixels but no labels"),
    "votes": (lambda: text("new.csv", "Usage,Image name\n"), "new.csv with the columns Usage, Image name"),
    "images in many folders": (
        lambda: [image(f"{n}/a.png") for n in "abcde"],
        "^d holds a/, b/, c/ and 2 more with images; class folders are read by data=image_folder labels=source. Exp",
    ),
    "own classes": (lambda: image("cats/a.png"), "cats/ with images.*data=image_folder labels=source"),
    "other files": (lambda: text("notes.txt", "x"), "d holds notes.txt. Expected"),
    "two tables": (lambda: [text(f"{n}.csv", "emotion,pixels\n") for n in "ab"], r"(?s)2 data sets.*a.csv.*b.csv"),
}  # fmt: skip


@pytest.mark.parametrize("case", NEAR_MISSES)
def test_a_folder_that_was_named_and_holds_nothing_known_is_refused(case: str) -> None:
    make, message = NEAR_MISSES[case]
    make()
    before = sorted(Path().rglob("*"))
    with pytest.raises(UserError, match=message):
        run(compose("prepare", "data_dir=d"))
    assert sorted(Path().rglob("*")) == before, "nothing is created"


def test_synthetic_faces_replace_data_only_where_nobody_named_any(capsys: pytest.CaptureFixture[str]) -> None:
    few = "data.fallback.training=1"
    assert run(compose("prepare", few)).source == "synthetic faces"
    assert "FER2013 was not found in data/; SYNTHETIC faces are used instead" in capsys.readouterr().out
    Path("data").mkdir(exist_ok=True)
    Path("data/readme.txt").write_text("x")
    assert run(compose("prepare", few)).source == "synthetic faces"
    Path("data/fer2013.rar").write_text("x")
    with pytest.raises(UserError, match=r"fer2013.rar: unpack it"):
        run(compose("prepare", few))


def test_a_file_may_be_named_instead_of_its_folder(few_faces: FaceChunk) -> None:
    text("any.csv", lines(few_faces))
    assert len(run(compose("prepare", "data_dir=d/any.csv", "cache_dir=cache"))) == 63
