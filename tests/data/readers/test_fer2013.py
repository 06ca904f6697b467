"""Every form of FER2013's CSV file gives the same faces; invalid files are reported in one message."""

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emotion.data.cache import prepare
from emotion.data.faces import EMOTIONS, TRAINING, USAGES, DataSource, FaceChunk
from emotion.data.readers import fer2013
from emotion.errors import UserError
from tests.conftest import csv_lines

ICML = "emotion, Usage, pixels"


def all_rows(source: DataSource) -> FaceChunk:
    """Return all rows of a source without votes."""
    chunks = [FaceChunk(c.images.copy(), c.labels.copy(), c.usage.copy(), list(c.origin)) for c in source.chunks]
    images, labels, usage = (np.concatenate(arrays) for arrays in list(zip(*chunks, strict=True))[:3])
    return FaceChunk(images, labels, usage, [origin for chunk in chunks for origin in chunk.origin])


def assert_equal(one: FaceChunk, other: FaceChunk) -> None:
    for left, right in zip(one[:3], other[:3], strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_both_csv_formats_give_the_same_faces(end: str, tmp_path: Path, few_faces: FaceChunk) -> None:
    first, second = tmp_path / "fer2013.csv", tmp_path / "icml_face_data.csv"
    first.write_bytes((end.join(csv_lines(few_faces)) + end).encode())
    second.write_bytes(end.join(csv_lines(few_faces, ICML)).encode())  # without a final line end
    read, other = all_rows(fer2013.read_csv(str(first))), all_rows(fer2013.read_icml_csv(str(second)))
    assert_equal(read, few_faces)
    assert_equal(other, few_faces)
    assert read.origin == other.origin == [f"row {row}" for row in range(63)]


@pytest.mark.parametrize("rows", [fer2013.CHUNK - 1, fer2013.CHUNK, fer2013.CHUNK + 1, 2 * fer2013.CHUNK + 1])
def test_any_number_of_rows_keeps_its_order(rows: int, tmp_path: Path, few_faces: FaceChunk) -> None:
    lines = csv_lines(few_faces)
    path = tmp_path / "fer2013.csv"
    path.write_text("\n".join([lines[0], *(lines[1:] * 17)[:rows]]))
    read = all_rows(fer2013.read_csv(str(path)))
    expected = FaceChunk(*(np.concatenate([column] * 17)[:rows] for column in few_faces[:3]), [])
    assert_equal(read, expected)
    assert read.origin == [f"row {row}" for row in range(rows)]


def pixel(line: str, value: str) -> str:
    label, pixels, usage = line.split(",")
    return f"{label},{value} {pixels.split(' ', 1)[1]},{usage}"


DAMAGE: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "wrong header": (lambda f: ["label,image,split", *f[1:]], r"begins with 'label,image,split'; expected a header"),
    "header only": (lambda f: f[:1], "no rows"),
    "a truncated row": (lambda f: [*f[:3], f[3][:4000]], r"row 2 \(line 4\): found 2 columns, expected 3.*truncated"),
    "a quote that is not closed": (
        lambda f: [*f[:2], f[2].replace(",", ',"', 1)],
        "row 1.*found 2 columns, expected 3",
    ),
    "a pixel too few": (lambda f: [*f[:1], f[1].replace(" ", "", 1)], "row 0.*found (2303 pixels|pixel value)"),
    "a pixel too many": (lambda f: [f[0], pixel(f[1], "7 7")], "row 0.*found 2305 pixels"),
    "a pixel of 256": (lambda f: [*f[:2], pixel(f[2], "256")], "row 1.*found pixel value 256, expected 0 to 255"),
    "a negative pixel": (lambda f: [*f[:2], pixel(f[2], "-1")], "row 1.*found pixel value -1"),
    "a pixel that wraps to 70": (lambda f: [*f[:2], pixel(f[2], "4294967366")], "found pixel value 4294967366"),
    "a word for a pixel": (lambda f: [*f[:2], pixel(f[2], "x7")], "row 1.*found 'x7' among the pixels"),
    "a fraction for a pixel": (lambda f: [*f[:2], pixel(f[2], "7.5")], "found '7.5' among the pixels"),
    "label 7": (lambda f: [f[0], "7" + f[1][1:]], r"row 0.*found label '7', expected 0 to 6\. Fix"),
    "a long label": (lambda f: [f[0], "7" * 50 + f[1][1:]], rf"found label '{'7' * 40}'\.\.\., expected"),
    "a label of 40": (lambda f: [f[0], "7" * 40 + f[1][1:]], rf"found label '{'7' * 40}', expected"),
    "no label": (lambda f: [f[0], f[1][1:]], "found label ''"),
    "unknown usage": (lambda f: [f[0], f[1].replace("Training", "Other")], "found usage 'Other'.*expected Training"),
    "nothing": (lambda f: [], "is empty"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_csv_is_refused_with_row_and_reason(damage: str, tmp_path: Path, few_faces: FaceChunk) -> None:
    change, message = DAMAGE[damage]
    path = tmp_path / "fer2013.csv"
    path.write_text("\n".join(change(csv_lines(few_faces))))
    with pytest.raises(UserError, match=message):
        all_rows(fer2013.read_csv(str(path)))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "fer2013.csv"
    path.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(UserError, match="expected a header"):
        all_rows(fer2013.read_csv(str(path)))


def test_the_message_for_a_missing_csv_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist.*Kaggle.*data_dir=FOLDER"):
        fer2013.read_csv(str(tmp_path / "fer2013.csv"))


def rows_of(text: bytes, name: str = "data/fer2013.csv") -> FaceChunk:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(text)
    return all_rows(fer2013.read_csv(name))


def cells(faces: FaceChunk) -> list[list[str]]:
    return [line.split(",") for line in csv_lines(faces)]


def table(rows: list[list[str]], *columns: int, quote: bool = False, delimiter: str = ",") -> bytes:
    mark = '"' if quote else ""
    return "\n".join(delimiter.join(f"{mark}{row[i]}{mark}" for i in columns) for row in rows).encode()


VARIANTS: dict[str, Callable[[list[list[str]]], bytes]] = {
    "a byte order mark": lambda rows: b"\xef\xbb\xbf" + table(rows, 0, 1, 2),
    "quoted cells": lambda rows: table(rows, 0, 1, 2, quote=True),
    "quoted pixels": lambda rows: table([[row[0], f'"{row[1]}"', row[2]] for row in rows], 0, 1, 2),
    "one quoted row": lambda rows: table([*rows[:9], [f'"{cell}"' for cell in rows[9]], *rows[10:]], 0, 1, 2),
    "pixels on two lines": lambda rows: table([[row[0], f'"{row[1]}"', row[2]] for row in rows], 0, 1, 2).replace(
        b" ", b"\n"
    ),
    "another order": lambda rows: table(rows, 2, 0, 1),
    "an index and a note": lambda rows: table([[*row, str(i), "x"] for i, row in enumerate(rows)], 3, 0, 1, 2, 4),
    "blank lines": lambda rows: table(rows, 0, 1, 2).replace(b"\n", b"\r\n\r\n") + b"\n\n",
    "rows without text": lambda rows: table(rows, 0, 1, 2) + b" \n,\n,,\n",
    "semicolons": lambda rows: table(rows, 0, 1, 2, delimiter=";"),
    "fractions": lambda rows: table([rows[0], *([f"{row[0]}.0", *row[1:]] for row in rows[1:])], 0, 1, 2),
    "class names": lambda rows: table(
        [rows[0], *([EMOTIONS[int(row[0])].title(), *row[1:]] for row in rows[1:])], 0, 1, 2
    ),
    "lower case": lambda rows: table([[row[0], row[1], row[2].lower()] for row in rows], 0, 1, 2),
    "spaces": lambda rows: table([[f" {row[0]} ", row[1], f" {row[2]} "] for row in rows], 0, 1, 2),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_csv_is_read_by_the_names_of_its_columns(variant: str, few_faces: FaceChunk) -> None:
    read = rows_of(VARIANTS[variant](cells(few_faces)))
    assert_equal(read, few_faces)
    assert read.origin == [f"row {row}" for row in range(63)]


def test_the_line_of_a_message_counts_blank_and_quoted_lines(few_faces: FaceChunk) -> None:
    lines = csv_lines(few_faces)
    text = "\n".join([lines[0], "", lines[1].replace(",", ',"', 1).replace(",T", '",T'), "", pixel(lines[2], "999")])
    with pytest.raises(UserError, match=r"row 1 \(line 5\): found pixel value 999"):
        rows_of(text.encode())


def packed(name: str, content: bytes, member: str) -> Path:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("__MACOSX/._fer2013.csv", "x")
            archive.writestr("a/sample.csv", "id,emotion\n")
            archive.writestr(member, content)
    elif ".tar" in name:
        with tarfile.open(path, "w:gz") as archive:
            for entry, data in (("fer2013/README", b"x"), (member, content)):
                info = tarfile.TarInfo(entry)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    else:
        path.write_bytes({".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[path.suffix](content))
    return path


@pytest.mark.parametrize("ending", [".csv.gz", ".csv.bz2", ".csv.xz", ".zip", ".tar.gz"])
def test_a_packed_csv_is_the_same_source(ending: str, few_faces: FaceChunk) -> None:
    content = "\n".join(csv_lines(few_faces)).encode()
    packed(f"data/fer2013{ending}", content, "fer2013/fer2013.csv")
    config = {"_target_": "emotion.data.readers.fer2013.read_csv", "path": "data/fer2013.csv"}
    faces = prepare(config, "cache")
    np.testing.assert_array_equal(faces.images, few_faces.images)
    assert faces.source == f"data/fer2013{ending}"
    assert faces.digest == hashlib.md5(content).hexdigest()


@pytest.mark.parametrize("name", ["fer2013.csv.gz", "fer2013.zip", "fer2013.tar.gz"])
def test_a_damaged_packed_csv_is_refused(name: str, few_faces: FaceChunk) -> None:
    path = packed(f"data/{name}", "\n".join(csv_lines(few_faces)).encode(), "fer2013.csv")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match=rf"{name} cannot be unpacked .*is it complete"):
        all_rows(fer2013.read_csv("data/fer2013.csv"))


@pytest.mark.parametrize("name", ["FER2013.CSV", "Fer2013.csv", "fer2013/fer2013.csv"])
def test_a_csv_in_another_case_or_one_folder_deeper_is_found(name: str, few_faces: FaceChunk) -> None:
    Path("data", name).parent.mkdir(parents=True)
    Path("data", name).write_text("\n".join(csv_lines(few_faces)))
    assert fer2013.read_csv("data/fer2013.csv").name == f"data/{name}"


def test_the_pair_of_the_contest_is_read_and_its_unlabeled_part_left_out(few_faces: FaceChunk) -> None:
    rows = cells(few_faces)
    test = [row for row in rows if row[2] != "Training"]
    Path("data").mkdir()
    Path("data/test.csv").write_bytes(table(test, 1, quote=True))
    Path("data/train.csv").write_bytes(table([row for row in rows if row not in test[1:]], 0, 1, quote=True))
    source = fer2013.read_csv("data/train.csv")
    assert any("test.csv" in note and "no labels" in note for note in source.notes)
    read = all_rows(source)
    assert set(read.usage) == {TRAINING}
    np.testing.assert_array_equal(read.images, few_faces.images[few_faces.usage == TRAINING])


def test_files_of_one_part_are_read_together_but_not_twice(few_faces: FaceChunk) -> None:
    Path("data").mkdir()
    header, *rows = [row for row in cells(few_faces) if row[2] in ("Usage", "Training")]
    for name, half in {"train_1": rows[:9], "train_2": rows[9:], "train_2 (1)": rows[9:]}.items():
        Path(f"data/{name}.csv").write_bytes(table([header, *half], 0, 1))
    Path("data/test.zip").write_bytes(b"no archive")
    source = fer2013.read_csv("data/train_1.csv")
    np.testing.assert_array_equal(all_rows(source).images, few_faces.images[few_faces.usage == TRAINING])
    assert any(note.startswith("left out: test.zip: ") for note in source.notes)
    assert "left out: train_2 (1).csv, by its name a copy of train_2.csv" in source.notes


def test_labeled_files_of_all_parts_are_read_together(few_faces: FaceChunk) -> None:
    Path("data").mkdir()
    for usage, name in enumerate(("train", "val", "test")):
        rows = [row for row in cells(few_faces) if row[2] in ("Usage", USAGES[usage])]
        Path(f"data/{name}.csv").write_bytes(table(rows, 0, 1))
    assert_equal(all_rows(fer2013.read_csv("data/train.csv")), few_faces)
