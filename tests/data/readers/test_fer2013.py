"""Every form of FER2013 gives the same faces; what is wrong with a file is said in one message."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emotion.data.faces import EMOTIONS, PRIVATE_TEST, PUBLIC_TEST, TEST, TRAINING, DataSource, FaceChunk
from emotion.data.readers import fer2013, image_folder
from emotion.errors import UserError
from tests.conftest import csv_lines

ICML = "emotion, Usage, pixels"


def all_rows(reading: DataSource) -> FaceChunk:
    parts = [FaceChunk(r.images.copy(), r.labels.copy(), r.usage.copy(), list(r.origin)) for r in reading.chunks]
    return FaceChunk(
        np.concatenate([p.images for p in parts]),
        np.concatenate([p.labels for p in parts]),
        np.concatenate([p.usage for p in parts]),
        [origin for p in parts for origin in p.origin],
    )


def test_csv_gives_the_faces_that_were_written(fer_csv: Path, few_faces: FaceChunk) -> None:
    read = all_rows(fer2013.read_csv(str(fer_csv)))
    np.testing.assert_array_equal(read.images, few_faces.images)
    np.testing.assert_array_equal(read.labels, few_faces.labels)
    np.testing.assert_array_equal(read.usage, few_faces.usage)
    assert read.origin[:2] == ["row 0", "row 1"]


def test_both_csv_layouts_give_the_same_faces(tmp_path: Path, fer_csv: Path, few_faces: FaceChunk) -> None:
    other = tmp_path / "icml_face_data.csv"
    other.write_text("\n".join(csv_lines(few_faces, ICML)))  # no newline at the end either
    one, two = all_rows(fer2013.read_csv(str(fer_csv))), all_rows(fer2013.read_icml_csv(str(other)))
    for left, right in zip(one, two, strict=True):
        np.testing.assert_array_equal(left, right)


def test_windows_line_ends_change_nothing(tmp_path: Path, few_faces: FaceChunk) -> None:
    path = tmp_path / "fer2013.csv"
    path.write_bytes("\r\n".join(csv_lines(few_faces)).encode() + b"\r\n")
    np.testing.assert_array_equal(all_rows(fer2013.read_csv(str(path))).images, few_faces.images)


def test_more_rows_than_a_chunk_come_in_order(tmp_path: Path, few_faces: FaceChunk) -> None:
    lines = csv_lines(few_faces)
    path = tmp_path / "fer2013.csv"
    path.write_text("\n".join([lines[0], *(lines[1:] * 9)]))
    read = all_rows(fer2013.read_csv(str(path)))
    np.testing.assert_array_equal(read.labels, np.tile(few_faces.labels, 9))
    assert len(read.labels) > 512
    assert read.origin[-1] == f"row {len(read.labels) - 1}"


def pixel(line: str, value: str) -> str:
    label, pixels, usage = line.split(",")
    return f"{label},{value} {pixels.split(' ', 1)[1]},{usage}"


DAMAGE: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "wrong header": (lambda f: ["label,image,split", *f[1:]], r"begins with 'label,image,split'; expected the header"),
    "header only": (lambda f: f[:1], "no rows"),
    "a row cut short": (lambda f: [*f[:3], f[3][:4000]], r"row 2 \(line 4\): found 2 columns, expected 3.*cut short"),
    "a pixel too few": (lambda f: [*f[:1], f[1].replace(" ", "", 1)], "row 0.*found (2303 pixels|pixel value)"),
    "a pixel of 256": (lambda f: [*f[:2], pixel(f[2], "256")], "row 1.*found pixel value 256, expected 0 to 255"),
    "a negative pixel": (lambda f: [*f[:2], pixel(f[2], "-1")], "row 1.*found pixel value -1"),
    "a pixel that wraps to 70": (lambda f: [*f[:2], pixel(f[2], "4294967366")], "found pixel value 4294967366"),
    "a word for a pixel": (lambda f: [*f[:2], pixel(f[2], "x7")], "row 1.*found 'x7' among the pixels"),
    "a fraction for a pixel": (lambda f: [*f[:2], pixel(f[2], "7.5")], "found '7.5' among the pixels"),
    "label 7": (lambda f: [f[0], "7" + f[1][1:]], "row 0.*found label '7', expected 0 to 6"),
    "no label": (lambda f: [f[0], f[1][1:]], "found label ''"),
    "unknown usage": (lambda f: [f[0], f[1].replace("Training", "Dev")], "found usage 'Dev'.*expected Training"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_csv_is_refused_with_row_and_reason(damage: str, tmp_path: Path, few_faces: FaceChunk) -> None:
    change, message = DAMAGE[damage]
    path = tmp_path / "fer2013.csv"
    path.write_text("\n".join(change(csv_lines(few_faces))))
    with pytest.raises(UserError, match=message):
        all_rows(fer2013.read_csv(str(path)))


def test_missing_csv_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not there.*Kaggle.*data_dir=FOLDER"):
        fer2013.read_csv(str(tmp_path / "fer2013.csv"))


def test_empty_csv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fer2013.csv").touch()
    with pytest.raises(UserError, match="is empty"):
        fer2013.read_csv(str(tmp_path / "fer2013.csv"))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "fer2013.csv"
    path.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(UserError, match="expected the header"):
        all_rows(fer2013.read_csv(str(path)))


def test_folder_gives_the_faces_of_the_csv(fer_folder: Path, few_faces: FaceChunk) -> None:
    read = all_rows(image_folder.read(str(fer_folder)))
    numbers = [int(Path(origin).stem.split("_")[1]) for origin in read.origin]
    np.testing.assert_array_equal(read.images, few_faces.images[numbers])
    np.testing.assert_array_equal(read.labels, few_faces.labels[numbers])
    np.testing.assert_array_equal(read.usage, few_faces.usage[numbers])
    assert set(read.usage) == {TRAINING, PUBLIC_TEST, PRIVATE_TEST}


def test_folder_whose_names_tell_nothing_has_one_test_set(fer_folder: Path) -> None:
    for file in (fer_folder / "test").glob("*/*.png"):
        file.rename(file.with_name(f"im{file.name.split('_')[1]}"))
    assert set(all_rows(image_folder.read(str(fer_folder))).usage) == {TRAINING, TEST}


def test_colour_image_of_another_size_becomes_grey_48(fer_folder: Path) -> None:
    from PIL import Image

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


def test_unknown_class_folder_is_refused(fer_folder: Path) -> None:
    (fer_folder / "train" / "contempt").mkdir()
    with pytest.raises(UserError, match=f"has contempt; expected only the classes {', '.join(EMOTIONS)}"):
        image_folder.read(str(fer_folder))


def test_folder_without_test_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="test is not there; expected"):
        image_folder.read(str(tmp_path))


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part / "sad").mkdir(parents=True)
    with pytest.raises(UserError, match="hold no images"):
        image_folder.read(str(tmp_path))
