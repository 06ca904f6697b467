"""Parquet files of the Hugging Face Hub's form give the same faces."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from emotion.data.cache import prepare
from emotion.data.faces import EMOTIONS, TEST, TRAINING, USAGES, FaceChunk
from emotion.data.readers import parquet
from emotion.errors import UserError
from tests.data.readers.test_fer2013 import all_rows, assert_equal


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write(name: str, images: list[Any], labels: list[Any], names: list[str] | None = None, **columns: str) -> None:
    """Write a file as the library `datasets` does; `columns` renames image and label."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": content, "path": "a.png"} if isinstance(content, bytes) else content for content in images]
    table = pa.table({columns.get("image", "image"): cells, columns.get("label", "label"): labels})
    if names:
        features = {columns.get("label", "label"): {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, name)


def shards(faces: FaceChunk, names: list[str]) -> None:
    for usage, part in enumerate(("train", "validation", "test")):
        rows = np.flatnonzero(faces.usage == usage)
        write(
            f"data/{part}-00000-of-00001.parquet",
            [encoded(faces.images[row]) for row in rows],
            [names.index(EMOTIONS[faces.labels[row]]) for row in rows],
            names,
        )


@pytest.mark.parametrize("names", [list(EMOTIONS), sorted(EMOTIONS)], ids=["FER2013's order", "alphabetical"])
def test_parquet_files_give_the_same_faces(names: list[str], few_faces: FaceChunk) -> None:
    shards(few_faces, names)
    source = parquet.read("data")
    assert tuple(source.classes) == EMOTIONS
    assert_equal(all_rows(source), few_faces)
    assert [note.partition(":")[2] for note in source.notes] == [f" 21 rows as {name}" for name in USAGES[:3]]
    config = {"_target_": "emotion.data.readers.parquet.read", "path": "data"}
    digest = prepare(config, "cache").digest
    Path("data").rename("moved")
    assert prepare(config | {"path": "moved"}, "cache").digest == digest


@pytest.mark.parametrize(
    ("labels", "classes"),
    [([3, 4, 0], ["angry", "happy", "sad"]), (["Happiness", "bored", "sad"], ["happy", "sad", "bored"])],
)
def test_labels_are_numbers_or_names(labels: list[Any], classes: list[str]) -> None:
    content = encoded(np.zeros((9, 9), np.uint8))
    write("data/fer.parquet", [content] * 3, labels, image="img", label="emotion")
    source = parquet.read("data/fer.parquet")
    assert (list(source.classes), set(all_rows(source).usage)) == (classes, {TRAINING})


def test_parts_are_in_the_names_of_files_or_folders() -> None:
    content = encoded(np.zeros((9, 9), np.uint8))
    for name in ("default/train/0000", "default/train/0001", "default/test/0000"):
        write(f"data/{name}.parquet", [content], [0])
    assert all_rows(parquet.read("data")).usage.tolist() == [TRAINING, TRAINING, TEST]


def test_the_part_may_be_in_a_partitioned_folder_and_the_ending_in_capitals() -> None:
    content = encoded(np.zeros((9, 9), np.uint8))
    for name in ("split=train/0.parquet", "split=test/0.PARQUET"):
        write(f"data/{name}", [content], [0])
    assert all_rows(parquet.read("data")).usage.tolist() == [TRAINING, TEST]


def test_a_file_has_its_own_class_names_in_any_case_of_its_columns() -> None:
    content = encoded(np.zeros((9, 9), np.uint8))
    write("data/train.parquet", [content] * 2, [0, 1], ["sad", "happy"], label="Label")
    write("data/test.parquet", [content] * 3, [0, 1, 2], ["happy", "sad", "bored"], label="LABEL")
    write("data/val.parquet", [content], ["Sadness"])
    source = parquet.read("data")
    assert source.classes == ["happy", "sad", "bored"]
    labels = [source.classes[label] for label in all_rows(source).labels]
    assert labels == ["sad", "happy", "sad", "happy", "sad", "bored"]  # train, val, test


def test_numbers_without_names_beside_named_ones_are_refused() -> None:
    content = encoded(np.zeros((9, 9), np.uint8))
    write("data/train.parquet", [content] * 2, [0, 1], ["sad", "happy"])
    write("data/val.parquet", [], [])
    assert len(all_rows(parquet.read("data")).labels) == 2
    write("data/test.parquet", [content] * 2, [0, -1])
    with pytest.raises(UserError, match=r"test.parquet has numbers without class names, but .*train.parquet has the"):
        parquet.read("data")


@pytest.mark.parametrize("labels", [[0, None], [0.0, float("nan")], ["sad", None]])
def test_a_row_without_a_label_is_refused(labels: list[Any]) -> None:
    content = encoded(np.zeros((9, 9), np.uint8))
    write("data/a.parquet", [content] * 2, labels)
    with pytest.raises(UserError, match=r"row 1: found label 'null', expected one of"):
        all_rows(parquet.read("data"))


def test_plain_bytes_of_another_size_are_converted() -> None:
    write("data/a.parquet", [], [])
    pq.write_table(pa.table({"image": [encoded(np.zeros((9, 7, 3), np.uint8))], "label": [0]}), "data/a.parquet")
    assert all_rows(parquet.read("data", size=6, channels=3)).images.shape == (1, 6, 6, 3)


def test_a_large_file_is_read_in_bounded_memory() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2000, 64, 64), np.uint8)
    write("data/a.parquet", [encoded(pixels) for pixels in noise], [0] * 2000)
    pq.write_table(pq.read_table("data/a.parquet"), "data/a.parquet", row_group_size=100)
    pool = pa.default_memory_pool()
    before, rows, used = pool.bytes_allocated(), 0, 0
    for chunk in parquet.read("data", size=64).chunks:
        rows, used = rows + len(chunk.labels), max(used, pool.bytes_allocated() - before)
    assert rows == 2000
    assert used < 0.5 * Path("data/a.parquet").stat().st_size


REFUSED = {
    "no file": (lambda: Path("data").mkdir(), "data contains no .parquet file. data is empty"),
    "no parquet": (lambda: text("no parquet"), "a.parquet cannot be read .*expected a parquet file"),
    "columns": (lambda: write("data/a.parquet", [b"x"], [0], label="x"), "has the columns image, x; expected a column"),
    "label": (lambda: write("data/a.parquet", [b"x"], [5], ["sad"]), "row 0: found label '5', expected one of sad, 0"),
    "image": (lambda: write("data/a.parquet", [b"x"], [0]), r"(?s)1 of 1 image in data/a.parquet.*a.parquet row 0"),
    "no image": (lambda: write("data/a.parquet", [1], [0]), "row 0: found no image but int"),
}  # fmt: skip


def text(content: str) -> None:
    Path("data").mkdir()
    Path("data/a.parquet").write_text(content)


@pytest.mark.parametrize("case", REFUSED)
def test_other_files_are_refused(case: str) -> None:
    make, message = REFUSED[case]
    make()
    with pytest.raises(UserError, match=message):
        all_rows(parquet.read("data"))
