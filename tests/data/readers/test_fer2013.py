"""Every format of FER2013 gives the same faces; invalid files are reported in one message."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion.data.faces import EMOTIONS, PRIVATE_TEST, PUBLIC_TEST, TEST, TRAINING, DataSource, FaceChunk
from emotion.data.readers import fer2013, image_folder
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


@pytest.mark.parametrize("rows", [fer2013.CHUNK - 1, fer2013.CHUNK, fer2013.CHUNK + 1, 2 * fer2013.CHUNK])
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
    "wrong header": (lambda f: ["label,image,split", *f[1:]], r"begins with 'label,image,split'; expected the header"),
    "header only": (lambda f: f[:1], "no rows"),
    "a truncated row": (lambda f: [*f[:3], f[3][:4000]], r"row 2 \(line 4\): found 2 columns, expected 3.*truncated"),
    "a pixel too few": (lambda f: [*f[:1], f[1].replace(" ", "", 1)], "row 0.*found (2303 pixels|pixel value)"),
    "a pixel too many": (lambda f: [f[0], pixel(f[1], "7 7")], "row 0.*found 2305 pixels"),
    "a pixel of 256": (lambda f: [*f[:2], pixel(f[2], "256")], "row 1.*found pixel value 256, expected 0 to 255"),
    "a negative pixel": (lambda f: [*f[:2], pixel(f[2], "-1")], "row 1.*found pixel value -1"),
    "a pixel that wraps to 70": (lambda f: [*f[:2], pixel(f[2], "4294967366")], "found pixel value 4294967366"),
    "a word for a pixel": (lambda f: [*f[:2], pixel(f[2], "x7")], "row 1.*found 'x7' among the pixels"),
    "a fraction for a pixel": (lambda f: [*f[:2], pixel(f[2], "7.5")], "found '7.5' among the pixels"),
    "label 7": (lambda f: [f[0], "7" + f[1][1:]], "row 0.*found label '7', expected 0 to 6"),
    "no label": (lambda f: [f[0], f[1][1:]], "found label ''"),
    "unknown usage": (lambda f: [f[0], f[1].replace("Training", "Dev")], "found usage 'Dev'.*expected Training"),
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
    with pytest.raises(UserError, match="expected the header"):
        all_rows(fer2013.read_csv(str(path)))


def test_the_message_for_a_missing_csv_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist.*Kaggle.*data_dir=FOLDER"):
        fer2013.read_csv(str(tmp_path / "fer2013.csv"))


def test_a_folder_gives_the_faces_of_the_csv(fer_folder: Path, few_faces: FaceChunk) -> None:
    read = all_rows(image_folder.read(str(fer_folder)))
    order = [int(Path(origin).stem.split("_")[1]) for origin in read.origin]
    assert_equal(read, FaceChunk(*(column[order] for column in few_faces[:3]), []))
    assert set(read.usage) == {TRAINING, PUBLIC_TEST, PRIVATE_TEST}


def test_a_folder_without_usage_in_its_names_has_one_test_set(fer_folder: Path) -> None:
    for file in (fer_folder / "test").glob("*/*.png"):
        file.rename(file.with_name(f"im{file.name.split('_')[1]}"))
    assert set(all_rows(image_folder.read(str(fer_folder))).usage) == {TRAINING, TEST}


def test_a_color_image_of_another_size_becomes_gray_48(fer_folder: Path) -> None:
    Image.new("RGB", (100, 80), (255, 0, 0)).save(fer_folder / "train" / "sad" / "a.jpg")
    read = all_rows(image_folder.read(str(fer_folder)))
    assert abs(int(read.images[read.origin.index("train/sad/a.jpg")].mean()) - 76) <= 1  # 0.299 * 255


def test_unreadable_images_are_all_listed(fer_folder: Path) -> None:
    (fer_folder / "train" / "sad" / "broken.png").write_bytes(b"no image")
    (fer_folder / "test" / "happy" / "cut.png").write_bytes(
        next((fer_folder / "train" / "sad").glob("Training*.png")).read_bytes()[:300]
    )
    with pytest.raises(UserError, match=r"(?s)2 of \d+ images.*train/sad/broken.png.*test/happy/cut.png"):
        all_rows(image_folder.read(str(fer_folder)))


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["train/contempt", "test"], f"has contempt; expected only the classes {', '.join(EMOTIONS)}"),
        (["train"], "test does not exist; expected"),
        (["train/sad", "test/sad"], "contain no images"),
    ],
)
def test_other_folders_are_refused(folders: list[str], message: str, tmp_path: Path) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(UserError, match=message):
        image_folder.read(str(tmp_path))
