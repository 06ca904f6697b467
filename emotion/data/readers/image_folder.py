"""Images in class folders: train/<class>/*.png and test/<class>/*.png, as in Kaggle's copies of FER2013, or similar.

Parts may be missing and have other names (validation, Test, PrivateTest, ...); without parts all images are Training.
Without a validation part, `test` merges PublicTest and PrivateTest: if every test file's name begins with one of the
two words, they are separated again; otherwise the folder has a single test set. Images may be any number of folders
below their class.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion.data.discovery import describe, has_image, image_root, subfolders
from emotion.data.faces import PRIVATE_TEST, PUBLIC_TEST, TEST, TRAINING, USAGES, DataSource, FaceChunk
from emotion.data.names import (
    describe_left_out,
    describe_renamed,
    is_litter,
    known_class,
    part_and_class,
    part_usage,
    part_usages,
    resolve_classes,
)
from emotion.data.readers.images import DECODE_ERRORS, FORMATS, SUFFIXES, ImageFormat, find_images, read_images
from emotion.errors import UserError, counted

if TYPE_CHECKING:
    from emotion.data.crop import Detector


def read(path: str, size: int = 48, channels: int = 1, detector: "Detector | None" = None) -> DataSource:
    """Read the images in the order of parts, classes and names, converted as in `ImageFormat`.

    The folder is `path` or below it. The classes are those of the folders' names, FER2013's first; see
    emotion.data.names for their synonyms.

    Raises:
        UserError: There are no images in class folders, or these are divided into parts; while reading: images cannot
            be read.
    """
    form = ImageFormat(size, channels, detector).check()
    root = image_root(Path(path)) or Path(path)
    parts = _parts(root)
    folders = [(usage, folder) for part, usage in parts.items() for folder in _class_folders(part)]
    classes, class_of = resolve_classes(folder.name for _, folder in folders)
    files: list[Path] = []
    labels: list[int] = []
    usages: list[int] = []
    others: list[Path] = []
    links: list[Path] = []
    for usage, folder in folders:
        _check_class(folder)
        found = find_images(folder)
        if not found.images:
            raise UserError(
                f"{folder} contains images only in {counted(len(found.links), 'linked folder')}, not followed: "
                f"{', '.join(map(str, found.links))}. Make {folder} itself a link, move the images, or list them: "
                f"data=path_list."
            )
        files += found.images
        others += found.others
        links += found.links
        labels += [classes.index(class_of[folder.name])] * len(found.images)
        usages += [usage] * len(found.images)
    if not files:
        raise UserError(
            f"{root} contains no images in class folders; expected {root}/train/<class> and {root}/test/<class> with "
            f"{', '.join(sorted(SUFFIXES))}. {describe(Path(path))} FER2013's image folder is on Kaggle (search "
            f"'fer2013 images'); set its location: data_dir=FOLDER."
        )
    separated = _separate_test(files, np.array(usages, np.uint8))
    notes = [f"{path}: images of {root}"] if root != Path(path) else []
    if {part.name for part in parts} - {"train", "test"}:
        notes.append("parts: " + ", ".join(f"{part.name} as {USAGES[usage]}" for part, usage in parts.items()))
    notes += describe_renamed(class_of) + _describe_size(files[0], form)
    notes += _describe_left_out(root, parts, others, links)
    chunks = _chunks(root, files, np.array(labels, np.uint8), separated, form)
    return DataSource(str(root), classes, files, len(files), chunks, root=root, notes=notes)


def _parts(root: Path) -> dict[Path, int]:
    """Return the usage of each part's folder, in the order of usages; the root if it has no parts."""
    named = [folder for folder in subfolders(root) if part_usage(folder.name) is not None]
    parts = [part for part in named if any(map(has_image, (part, *subfolders(part))))]  # class folders may be links
    return part_usages({folder: folder.name for folder in parts}) or {root: TRAINING}


def _class_folders(part: Path) -> list[Path]:
    """Return the folders with images in a part, or in a single further folder such as train/images."""
    folders = [folder for folder in subfolders(part) if has_image(folder)]
    if len(folders) == 1 and known_class(folders[0].name) is None and any(map(has_image, subfolders(folders[0]))):
        return _class_folders(folders[0])
    return folders


def _check_class(folder: Path) -> None:
    """Raise UserError if a class folder is divided into parts, or named after one; all its images would be of one."""
    if parts := [below for below in subfolders(folder) if part_usage(below.name) is not None and has_image(below)]:
        raise UserError(
            f"{', '.join(map(str, parts))}: found parts inside of a class, expected classes inside of the parts: "
            f"{folder.parent / parts[0].name / folder.name}. Move the folders, or list the images: data=path_list."
        )
    if named := part_and_class(folder.name):
        raise UserError(
            f"{folder}: found a part and a class in one name, expected classes inside of the parts: "
            f"{folder.parent.joinpath(*named)}. Move the folders, or list the images: data=path_list."
        )


def _separate_test(files: list[Path], usage: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the usages (N,), with a merged test set separated if all of its file names state their usage."""
    test = np.flatnonzero(usage == TEST)
    names = [files[row].name for row in test]
    if all(name.startswith(("PublicTest", "PrivateTest")) for name in names):
        usage[test] = [PUBLIC_TEST if name.startswith("Public") else PRIVATE_TEST for name in names]
    return usage


def _describe_size(file: Path, form: ImageFormat) -> list[str]:
    """Return a sentence about the conversion of the images if the first one needs it."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            found = f"{image.width}x{image.height} {'gray' if image.mode in ('1', 'L') else 'color'}"
    except DECODE_ERRORS:
        return []  # reported while reading
    wanted = f"{form.size}x{form.size} {'gray' if form.channels == 1 else 'color'}"
    if found == wanted:
        return []
    return [f"images such as {file.name} are {found}, read as {wanted}: data.size=, data.channels="]


def _describe_left_out(
    root: Path, parts: Mapping[Path, int], others: Sequence[Path], links: Sequence[Path]
) -> list[str]:
    """Return sentences that count what is not read: images outside class folders, linked folders and other files."""
    notes = []
    for folder in dict.fromkeys((root, *parts)):
        if loose := [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not is_litter(path.name)]:
            notes.append(f"left out: {counted(len(loose), 'image')} in {folder.name}/ outside its class folders")
    for folder in subfolders(root) if root not in parts else ():
        if folder not in parts and (images := find_images(folder).images):
            notes.append(
                f"left out: {counted(len(images), 'image')} in {folder.name}/, which is not a part like train or test"
            )
    if links:
        name = links[0].relative_to(root)
        notes.append(f"left out: {counted(len(links), 'linked folder')}, not followed, such as {name}")
    return notes + describe_left_out([str(path.relative_to(root)) for path in others])


def _chunks(
    root: Path, files: list[Path], labels: NDArray[np.uint8], usage: NDArray[np.uint8], form: ImageFormat
) -> Iterator[FaceChunk]:
    names = [str(file.relative_to(root)) for file in files]
    for rows, images, without_face in read_images(files, form, names.__getitem__, str(root)):
        part = slice(rows.start, rows.stop)
        yield FaceChunk(images, labels[part], usage[part], names[part], None, without_face)
