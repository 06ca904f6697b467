"""FER2013 as Kaggle's image folder: train/<class>/*.png and test/<class>/*.png.

`test` merges PublicTest and PrivateTest. If every test file's name begins with one of the two words, they are separated
again; otherwise the folder has a single test set.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from emotion.data.faces import EMOTIONS, PRIVATE_TEST, PUBLIC_TEST, TEST, TRAINING, DataSource, FaceChunk
from emotion.data.readers.images import SUFFIXES, read_images
from emotion.errors import UserError


def read(path: str, size: int = 48) -> DataSource:
    """Read the images in the order of their names, converted to grey `size` x `size`: see `read_images`.

    Raises:
        UserError: A split or class folder is missing or unknown, or there are no images; while reading: images cannot
            be read.
    """
    root = Path(path)
    train, test = (_image_files(root, part) for part in ("train", "test"))
    files = train + test
    if not files:
        raise UserError(
            f"{root}/train and {root}/test contain no images; expected {', '.join(sorted(SUFFIXES))} in class folders."
        )
    test_usage = [_usage_of_name(file.name) for file in test]
    usage = [TRAINING] * len(train) + ([TEST] * len(test) if TEST in test_usage else test_usage)
    return DataSource(str(root), EMOTIONS, files, len(files), _chunks(root, files, usage, size))


def _image_files(root: Path, part: str) -> list[Path]:
    if not (root / part).is_dir():
        raise UserError(
            f"{root / part} does not exist; expected {root}/train and {root}/test with one folder per class "
            f"({', '.join(EMOTIONS)}). FER2013's image folder is on Kaggle (search 'fer2013 images'); set its "
            f"location: data_dir=FOLDER."
        )
    folders = sorted(entry for entry in (root / part).iterdir() if not entry.name.startswith("."))
    if files := [entry.name for entry in folders if not entry.is_dir()]:
        raise UserError(
            f"{root / part} contains the files {', '.join(files)}; expected only one folder per class. Remove them."
        )
    if unknown := [entry.name for entry in folders if entry.name not in EMOTIONS]:
        raise UserError(f"{root / part} has {', '.join(unknown)}; expected only the classes {', '.join(EMOTIONS)}.")
    return [file for folder in folders for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES]


def _usage_of_name(name: str) -> int:
    return PUBLIC_TEST if name.startswith("PublicTest") else PRIVATE_TEST if name.startswith("PrivateTest") else TEST


def _chunks(root: Path, files: list[Path], usage: list[int], size: int) -> Iterator[FaceChunk]:
    names = [str(file.relative_to(root)) for file in files]
    for rows, images in read_images(files, size, 1, names.__getitem__, str(root)):
        part = slice(rows.start, rows.stop)
        labels = np.array([EMOTIONS.index(file.parent.name) for file in files[part]], np.uint8)
        yield FaceChunk(images, labels, np.array(usage[part], np.uint8), names[part])
