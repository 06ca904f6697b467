"""Folders of images in the forms that people have; what is not read is counted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion.data.faces import EMOTIONS, PRIVATE_TEST, PUBLIC_TEST, TEST, TRAINING, DataSource, FaceChunk
from emotion.data.names import RAF_DB
from emotion.data.readers import image_folder
from emotion.errors import UserError
from tests.data.readers.test_fer2013 import all_rows, assert_equal


def test_a_folder_gives_the_faces_of_the_csv(fer_folder: Path, few_faces: FaceChunk) -> None:
    source = image_folder.read(str(fer_folder))
    read = all_rows(source)
    order = [int(Path(origin).stem.split("_")[1]) for origin in read.origin]
    assert_equal(read, FaceChunk(*(column[order] for column in few_faces[:3]), []))
    assert set(read.usage) == {TRAINING, PUBLIC_TEST, PRIVATE_TEST}
    assert tuple(source.classes) == EMOTIONS
    assert list(source.notes) == []


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


def image(path: str, shade: int = 0, size: int = 48) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (size, size), shade).save(path)


def folder(*names: str) -> DataSource:
    """Write images, whose shades are their numbers, and read their folder."""
    for shade, name in enumerate(names):
        image(f"data/{name}", shade)
    return image_folder.read("data")


def rows(source: DataSource) -> dict[int, tuple[str, int]]:
    """Return class and usage by shade."""
    read = all_rows(source)
    columns = zip(read.images[:, 0, 0].tolist(), read.labels.tolist(), read.usage.tolist(), strict=True)
    return {shade: (source.classes[label], usage) for shade, label, usage in columns}


PARTS = {
    "val": ("train/sad/a.png", "val/sad/a.png", "test/sad/a.png"),
    "validation": ("Train/sad/a.png", "Validation/sad/a.png", "Test/sad/a.png"),
    "FER2013's names": ("Training/sad/a.png", "PublicTest/sad/a.png", "PrivateTest/sad/a.png"),
    "words": ("training_set/sad/a.png", "valid/sad/a.png", "testing/sad/a.png"),
    "FER+'s names": ("FER2013Train/sad/a.png", "FER2013Valid/sad/a.png", "FER2013Test/sad/a.png"),
    "one folder deeper": ("fer2013/train/sad/a.png", "fer2013/val/sad/a.png", "fer2013/test/sad/a.png"),
    "two folders deeper": ("x/y/train/sad/a.png", "x/y/val/sad/a.png", "x/y/test/sad/a.png"),
    "a folder of images": ("train/images/sad/a.png", "val/images/sad/a.png", "test/images/sad/a.png"),
    "below the class": ("train/sad/1/a.png", "val/sad/1/2/a.png", "test/sad/a.png"),
}


@pytest.mark.parametrize("names", PARTS)
def test_parts_are_found_under_their_usual_names(names: str) -> None:
    usages = (TRAINING, PUBLIC_TEST, PRIVATE_TEST)
    assert rows(folder(*PARTS[names])) == {i: ("sad", usage) for i, usage in enumerate(usages)}


@pytest.mark.parametrize(
    ("names", "usages"),
    [
        (("train/sad/a.png", "test/sad/a.png"), (TRAINING, TEST)),
        (("test/sad/a.png", "test/happy/b.png"), (TEST, TEST)),
        (("train/sad/a.png", "train/happy/b.png"), (TRAINING, TRAINING)),
        (("train/sad/a.png", "val/sad/a.png"), (TRAINING, PUBLIC_TEST)),
        (("train/sad/a.png", "PrivateTest/sad/a.png"), (TRAINING, PRIVATE_TEST)),
        (("sad/a.png", "happy/b.png"), (TRAINING, TRAINING)),
        (("faces/sad/a.png", "faces/happy/b.png"), (TRAINING, TRAINING)),
        (("cats/a.png", "dogs/b.png"), (TRAINING, TRAINING)),
    ],
)
def test_parts_may_be_missing(names: tuple[str, ...], usages: tuple[int, ...]) -> None:
    assert tuple(usage for _, usage in rows(folder(*names)).values()) == usages


NAMES = {
    "capitals": [name.upper() for name in EMOTIONS],
    "nouns": ["Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Neutral"],
    "adjectives": ["angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral"],
    "numbers": list("0123456"),
    "numbers and names": [f"{i}_{name}" for i, name in enumerate(EMOTIONS)],
    "names and numbers": [f"{name.title()} ({i})" for i, name in enumerate(EMOTIONS)],
    "with other words": [f"{name.title()} Faces" for name in EMOTIONS],
    "codes of JAFFE": ["AN", "DI", "FE", "HA", "SA", "SU", "NE"],
    "codes of KDEF": ["an", "di", "af", "ha", "sa", "su", "ne"],
    "numbers of RAF-DB": [str(RAF_DB.index(name) + 1) for name in EMOTIONS],
}


@pytest.mark.parametrize("names", NAMES)
def test_other_names_of_the_classes_are_mapped_and_stated(names: str) -> None:
    source = folder(*(f"train/{name}/{i}.png" for i, name in enumerate(NAMES[names])))
    assert tuple(source.classes) == EMOTIONS
    assert [label for _, (label, _) in sorted(rows(source).items())] == list(EMOTIONS)
    (note,) = source.notes
    for name, label in zip(NAMES[names], EMOTIONS, strict=True):
        assert (f"{name} as {label}" in note) == (name != label)


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["contempt", "Happiness", "sad"], ["happy", "sad", "contempt"]),
        (["happy", "bored", "Asleep"], ["happy", "Asleep", "bored"]),
        (["happy", "Happy", "HAPPINESS"], ["happy"]),
        (["Cats", "cats", "Dogs"], ["Dogs", "cats"]),
        (["1", "2", "3"], ["1", "2", "3"]),
        (["0", "1", "7"], ["0", "1", "7"]),
        (["0", "1"], ["0", "1"]),
        (["0", "3"], ["angry", "happy"]),
        (["A\u0308rger", "\u00c4rger"], ["\u00e4rger"]),
        (["happily surprised", "happy", "not happy"], ["happy", "happily surprised", "not happy"]),
        (["an", "ne", "other"], ["an", "ne", "other"]),
    ],
)
def test_classes_are_those_that_occur(names: list[str], classes: list[str]) -> None:
    source = folder(*(f"train/{name}/a.png" for name in names))
    assert list(source.classes) == classes
    assert len(rows(source)) == len(names)


def test_classes_in_several_parts_keep_their_names() -> None:
    assert list(folder("train/Bored/a.png", "test/Bored/b.png").classes) == ["Bored"]


def test_more_classes_than_a_byte_counts_are_refused() -> None:
    with pytest.raises(UserError, match=r"found 256 classes, such as 1000, 1001, 1002; expected at most 255"):
        folder(*(f"train/{1000 + number}/a.png" for number in range(256)))


def test_a_part_without_images_is_no_part() -> None:
    folder("sad/a.png", "happy/b.png")
    Path("data/test").mkdir()
    assert rows(image_folder.read("data")) == {0: ("sad", TRAINING), 1: ("happy", TRAINING)}


def test_a_folder_without_images_is_no_class() -> None:
    folder("train/sad/a.png", "train/happy/b.png")
    Path("data/train/bored").mkdir()
    Path("data/train/asleep").mkdir()
    Path("data/train/asleep/notes.txt").write_text("x")
    source = image_folder.read("data")
    assert list(source.classes) == ["happy", "sad"]


@pytest.mark.parametrize(("size", "channels"), [(0, 1), (-1, 3), (48, 2)])
def test_an_impossible_shape_is_refused(size: int, channels: int) -> None:
    folder("train/sad/a.png")
    with pytest.raises(UserError, match=f"data.size={size} data.channels={channels}: expected a positive whole size"):
        image_folder.read("data", size, channels)
    assert next(iter(image_folder.read("data", 1, 3).chunks)).images.shape == (1, 1, 1, 3)


@pytest.mark.parametrize("ending", ["png", "JPG", "jpeg", "jfif", "bmp", "webp", "tif", "TIFF", "gif", "pgm", "ppm"])
def test_every_image_ending_is_read(ending: str) -> None:
    assert len(rows(folder("train/sad/a.png", f"train/sad/b.{ending}"))) == 2


LITTER = (
    ".DS_Store", "Thumbs.db", "train/desktop.ini", "train/._sad", "train/sad/._a.png", "train/sad/Thumbs.db",
    "train/__MACOSX/sad/._a.png", "__MACOSX/train/sad/a.png", "train/.ipynb_checkpoints/a.png", "train/@eaDir/a.png",
    "train/sad/.thumbnails/a.png", "train/sad/__MACOSX/a.png",
)  # fmt: skip


def test_litter_is_neither_read_nor_counted() -> None:
    for name in LITTER:
        Path("data", name).parent.mkdir(parents=True, exist_ok=True)
        Path("data", name).write_bytes(b"no image")
    source = folder("train/sad/a.png", "test/sad/a.png")
    assert (len(rows(source)), list(source.notes)) == (2, [])


def test_what_is_not_read_is_counted() -> None:
    folder("train/sad/a.png", "train/loose.png", "extra/sad/b.png", "extra/c.png", "d.png")
    for name in ("a.heic", "b.heic", "notes.txt"):
        Path("data/train/sad", name).write_text("x")
    source = image_folder.read("data")
    assert len(rows(source)) == 1
    assert list(source.notes) == [
        "left out: 1 image in data/ outside its class folders",
        "left out: 1 image in train/ outside its class folders",
        "left out: 2 images in extra/, which is not a part like train or test",
        "left out: 3 files other than images (2 .heic, 1 .txt), such as train/sad/a.heic",
    ]


@pytest.mark.parametrize(("size", "mode"), [(224, "RGB"), (48, "RGB"), (64, "L")])
def test_the_conversion_of_the_images_is_stated(size: int, mode: str) -> None:
    Path("data/train/sad").mkdir(parents=True)
    Image.new(mode, (size, size)).save("data/train/sad/a.png")
    (note,) = image_folder.read("data").notes
    assert f"are {size}x{size} {'color' if mode == 'RGB' else 'gray'}, read as 48x48 gray" in note
    whole = image_folder.read("data", size=size, channels=3 if mode == "RGB" else 1)
    assert list(whole.notes) == []
    assert all_rows(whole).images.shape == (1, size, size, 3)[: 4 if mode == "RGB" else 3]


def two() -> None:
    image("data/a/train/sad/a.png")
    image("data/b/train/sad/a.png")


def parts_in_classes() -> None:
    for name in ("happy/train/a.png", "happy/test/b.png", "sad/train/c.png"):
        image(f"data/{name}")


def parts_in_names() -> None:
    for name in ("train_happy/a.png", "train_sad/b.png", "test_happy/c.png"):
        image(f"data/{name}")


def classes_before_parts() -> None:
    image("data/images/Sad-Faces-Validation/a.png")


REFUSED: dict[str, tuple[Callable[[], None], str]] = {
    "nothing": (lambda: None, "data does not exist"),
    "empty": (lambda: Path("data").mkdir(), "contains no images in class folders.*data is empty"),
    "no images": (lambda: Path("data/train/sad").mkdir(parents=True), "no images.*data holds train/"),
    "loose images": (lambda: image("data/a.png"), "no images in class folders.*data holds a.png"),
    "parts in classes": (parts_in_classes, "data/happy/test, data/happy/train: found parts inside.*: data/test/happy"),
    "parts in names": (parts_in_names, "data/test_happy: found a part and a class.*: data/test/happy. Move"),
    "classes before parts": (classes_before_parts, "found a part and a class.*: data/images/Validation/Sad_Faces"),
    "two data sets": (two, r"(?s)data holds 2 data sets; choose one by data=image_folder data_dir=FOLDER:.*/a.*/b"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_folders_are_refused(case: str) -> None:
    make, message = REFUSED[case]
    make()
    with pytest.raises(UserError, match=message):
        image_folder.read("data")


def test_class_folders_may_be_links() -> None:
    for number, name in enumerate(("train/happy", "train/sad", "test/happy")):
        image(f"real/{number}/a.png", number)
        Path(f"data/{name}").parent.mkdir(parents=True, exist_ok=True)
        Path(f"data/{name}").symlink_to(Path(f"real/{number}").resolve())
    assert rows(image_folder.read("data")) == {0: ("happy", TRAINING), 1: ("sad", TRAINING), 2: ("happy", TEST)}


def link(path: str, target: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).symlink_to(Path(target).resolve())


def test_linked_folders_in_a_class_are_counted() -> None:
    image("real/more/b.png")
    link("data/train/sad/more", "real/more")
    link("data/train/sad/x/loop.png", "data/train")
    source = folder("train/sad/a.png", "train/happy/b.png")
    assert len(rows(source)) == 2
    assert list(source.notes) == ["left out: 2 linked folders, not followed, such as train/sad/more"]


@pytest.mark.parametrize("part", ["train/", "val/", ""])
def test_a_class_of_linked_folders_is_refused(part: str) -> None:
    for number in range(2):
        image(f"real/{number}/a.png")
        link(f"data/{part}happy/{number}", f"real/{number}")
    message = f"data/{part}happy contains images only in 2 linked folders, not followed: data/{part}happy/0, "
    with pytest.raises(UserError, match=message):
        folder(f"{'train/' if part else ''}sad/a.png")


def test_a_moved_part_is_another_source() -> None:
    from emotion.data.cache import prepare

    config = {"_target_": "emotion.data.readers.image_folder.read", "path": "data"}
    folder("train/sad/1/a.png", "val/sad/1/b.png")
    first = prepare(config, "cache")
    Path("data/train").rename("data/x")
    Path("data/val").rename("data/train")
    Path("data/x").rename("data/val")
    second = prepare(config, "cache")
    assert first.digest != second.digest
    np.testing.assert_array_equal(second.images[:, 0, 0], [1, 0])
