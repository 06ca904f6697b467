"""FER2013 as Kaggle's image folder: train/<class>/*.png and test/<class>/*.png.

`test` merges PublicTest and PrivateTest; where every test file's name begins with one of the two words, they are
told apart again, otherwise the folder has one test set.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from emotion.data.faces import EMOTIONS, PRIVATE_TEST, PUBLIC_TEST, TEST, TRAINING, Reading, Rows
from emotion.data.readers.images import SUFFIXES, read_images
from emotion.errors import UserError


def read(path: str, size: int = 48) -> Reading:
    """Rows in the order of their names; an image that is not grey and `size` x `size` is made so: `read_images`.

    Raises:
        UserError: a part or class folder is missing or unknown, there is no image, or images cannot be read
            (all of them are listed).
    """
    root = Path(path)
    files = [file for part in ("train", "test") for file in _files(root, part)]
    if not files:
        raise UserError(
            f"{root}/train and {root}/test hold no images; expected {', '.join(sorted(SUFFIXES))} in class folders."
        )
    words = {_usage_word(file) for file in files if _part(root, file) == "test"}
    return Reading(str(root), EMOTIONS, files, len(files), _rows(root, files, size, told_apart=TEST not in words))


def _files(root: Path, part: str) -> list[Path]:
    if not (root / part).is_dir():
        raise UserError(
            f"{root / part} is not there; expected {root}/train and {root}/test with one folder per class "
            f"({', '.join(EMOTIONS)}). FER2013's image folder is on Kaggle (search 'fer2013 images'); say where it is: "
            f"data_dir=FOLDER."
        )
    folders = sorted(entry for entry in (root / part).iterdir() if not entry.name.startswith("."))
    if files := [entry.name for entry in folders if not entry.is_dir()]:
        raise UserError(
            f"{root / part} has {', '.join(files)}, no folders; expected one folder per class. Remove them."
        )
    if unknown := [entry.name for entry in folders if entry.name not in EMOTIONS]:
        raise UserError(f"{root / part} has {', '.join(unknown)}; expected only the classes {', '.join(EMOTIONS)}.")
    return [file for folder in folders for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES]


def _part(root: Path, file: Path) -> str:
    return file.relative_to(root).parts[0]


def _usage_word(file: Path) -> int:
    for usage, word in ((PUBLIC_TEST, "PublicTest"), (PRIVATE_TEST, "PrivateTest")):
        if file.name.startswith(word):
            return usage
    return TEST


def _rows(root: Path, files: list[Path], size: int, *, told_apart: bool) -> Iterator[Rows]:
    for places, images in read_images(files, size, 1, lambda place: str(files[place].relative_to(root)), str(root)):
        chunk = [files[place] for place in places]
        labels = np.array([EMOTIONS.index(file.parent.name) for file in chunk], np.uint8)
        test = [(_usage_word(file) if told_apart else TEST) for file in chunk]
        usage = [TRAINING if _part(root, f) == "train" else t for f, t in zip(chunk, test, strict=True)]
        yield Rows(images, labels, np.array(usage, np.uint8), [str(file.relative_to(root)) for file in chunk])
