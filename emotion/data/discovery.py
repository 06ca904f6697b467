"""Discover data in a folder: forms of FER2013 that can be read directly, and files that resemble one."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from emotion.data.names import is_litter, known_class, part_usage, resolve_classes
from emotion.data.packed import OTHER_ARCHIVES, PREFERRED, is_archive, is_packed, members, open_unpacked, preference
from emotion.data.readers.images import SUFFIXES
from emotion.errors import UserError, first_few, listing
from emotion.io.bounded import read_lines

COLUMNS = {"emotion": ("emotion", "label"), "pixels": ("pixels", "pixel"), "usage": ("usage",)}
"""The columns of FER2013's CSV files, and the names they may have in any case."""

_, ICML_CSV, TRAIN_CSV = PREFERRED
MAX_DEPTH = 3  # of a folder of images below the given one
SHOWN, NAMED = 8, 3  # hints, and names of a hint
FORMS = (
    "fer2013.csv or icml_face_data.csv (also packed), train.csv of the contest, images in train/<class>/, or *.parquet"
)


class Found(NamedTuple):
    """Data in a form that a reader understands."""

    kind: str  # the name of the choice data=NAME
    path: Path  # for the reader


class Header(NamedTuple):
    """The first line of a CSV file."""

    names: list[str]
    delimiter: str

    def place(self, column: str) -> int | None:
        """Return the position of one of `COLUMNS`; None if it is missing."""
        lowered = [name.lower() for name in self.names]
        return next((lowered.index(name) for name in COLUMNS[column] if name in lowered), None)

    @property
    def has_faces(self) -> bool:
        """Whether there are pixels."""
        return self.place("pixels") is not None

    @property
    def has_labels(self) -> bool:
        """Whether there are pixels and labels."""
        return self.has_faces and self.place("emotion") is not None


def read_header(path: Path) -> Header:
    """Return the header of a CSV file, plain or packed; empty if the file does not begin with text.

    Raises:
        OSError: The file cannot be read.
        UserError: It is packed and damaged, or contains no CSV file.
    """
    with open_unpacked(path) as file:
        line = next(read_lines(file), b"")
    try:
        text = line.decode("utf-8-sig")
        delimiter = max(",;\t", key=text.count)
        return Header([cell.strip() for cell in next(csv.reader([text], delimiter=delimiter), [])], delimiter)
    except (UnicodeDecodeError, csv.Error):
        return Header([], ",")


def discover(folder: Path) -> Iterator[Found]:
    """Yield every form of FER2013 in a folder or below it, the preferred one first; for a file, only its own form.

    Raises:
        UserError: Several files or folders are equally good.
    """
    if folder.is_file():
        if folder.suffix.lower() == ".parquet" or _has_labels(folder):
            yield Found("parquet" if folder.suffix.lower() == ".parquet" else "fer2013_csv", folder)
        return
    tables = _labeled_csv(folder)
    contest = [path for path in tables if _stem_csv(path) in PREFERRED]
    if len(tables) > 1 and not contest:
        raise _ambiguous(folder, tables, "data=fer2013_csv data.path=FILE")
    whole = [path for path in contest if _stem_csv(path) != TRAIN_CSV]
    for path in whole:
        yield Found("icml_csv" if _stem_csv(path) == ICML_CSV else "fer2013_csv", path)
    if root := image_root(folder):
        yield Found("image_folder", root)
    for path in (contest or tables)[len(whole) :]:
        yield Found("fer2013_csv", path)
    for place in (folder, *subfolders(folder)):
        if any(path.suffix.lower() == ".parquet" for path in _entries(place)):
            yield Found("parquet", place)


def locate_csv(path: Path) -> Path:
    """Return the file, or the one of the same name that is packed, in another case or one folder deeper.

    Raises:
        UserError: There is none; the message names files that resemble it.
    """
    if path.is_file():
        return path
    folder = path.parent
    for places in ([folder], subfolders(folder)):
        if same := [file for file in _csv_files(places) if _stem_csv(file) == path.name.lower()]:
            if len({file.parent for file in same}) > 1:
                raise _ambiguous(folder, same, "data.path=FILE")
            return same[0]
    raise UserError(
        f"{path} does not exist. {describe(folder)} FER2013 is published on Kaggle (search 'fer2013.csv'); put the "
        f"file there, or set its location: data_dir=FOLDER, EMOTION_DATA=FOLDER or data.path=FILE."
    )


def image_root(folder: Path) -> Path | None:
    """Return the folder at or below `folder` that has parts (train, test, ...) of images, or class folders.

    Raises:
        UserError: There are several at the same depth.
    """
    level = [folder]
    for _ in range(MAX_DEPTH):
        if found := [place for place in level if _has_parts(place) or _has_classes(place)]:
            if len(found) > 1:
                raise _ambiguous(folder, found, "data=image_folder data_dir=FOLDER")
            return found[0]
        level = [below for place in level for below in subfolders(place)]
    return None


def describe(folder: Path) -> str:
    """Describe the contents of a folder that cannot be read directly, in one sentence."""
    if not folder.exists():
        return f"{folder} does not exist."
    entries = _entries(folder)
    if not entries:
        return f"{folder} is empty."
    names = [f"{path.name}/" if path.is_dir() else path.name for path in entries]
    return f"{folder} holds {first_few(near_misses(folder) or names, SHOWN, '; ')}."


def near_misses(folder: Path) -> list[str]:
    """Return hints on how to use the entries of a folder that resemble a form of FER2013; equal ones are one."""
    names: dict[str, list[str]] = {}
    for path in _entries(folder):
        if hint := _hint(path):
            names.setdefault(hint, []).append(f"{path.name}/" if path.is_dir() else path.name)
    return [f"{first_few(same, NAMED)}{hint}" for hint, same in names.items()]


def _hint(path: Path) -> str:
    """Return what to say after the name of a file or folder that resembles a form of FER2013; empty if none does."""
    if path.is_dir():
        if has_image(path):
            return " with images; class folders are read by data=image_folder labels=source"
        return ""
    if path.suffix.lower() in OTHER_ARCHIVES:
        return ": unpack it"
    if path.suffix.lower() == ".parquet":
        return ": data=parquet"
    if path.suffix.lower() != ".csv" and not is_packed(path):
        return ""
    try:
        if is_archive(path):
            images = [name for name in members(path) if Path(name).suffix.lower() in SUFFIXES]
            if images:
                return f" with images such as {images[0]}: unpack it"
        header = read_header(path)
    except (OSError, UserError) as error:
        return f": {error}"
    columns = [name.lower() for name in header.names]
    if header.has_labels:
        return f" with pixels and labels: data=fer2013_csv data.path={path}"
    if header.has_faces:
        return " with pixels but no labels"
    if {"path", "label"} <= set(columns):
        return ", a list of images: data=path_list"
    return f" with the columns {', '.join(header.names)[:60]}"


def _ambiguous(folder: Path, found: list[Path], advice: str) -> UserError:
    return UserError(f"{folder} holds {len(found)} data sets; choose one by {advice}:{listing(list(map(str, found)))}")


def _stem_csv(path: Path) -> str:
    """Return the lower-case name of the CSV file in fer2013.csv.gz, fer2013.tar.gz or FER2013.CSV: fer2013.csv."""
    return f"{path.name.lower().partition('.')[0]}.csv"


def _csv_files(places: Sequence[Path]) -> list[Path]:
    """Return the CSV files, plain or packed, in some folders: the contest's before others, plain before packed."""
    files = [path for place in places for path in _entries(place) if path.suffix.lower() == ".csv" or is_packed(path)]
    key = {path: (*preference(_stem_csv(path)), is_packed(path), path.name) for path in files if path.is_file()}
    return sorted(key, key=key.__getitem__)


def _labeled_csv(folder: Path) -> list[Path]:
    """Return the CSV files with faces and labels; of the parts train.csv, test.csv, ... only the first."""
    for places in ([folder], subfolders(folder)):
        found: dict[tuple[Path, str], Path] = {}
        for path in _csv_files(places):
            if _has_labels(path):
                stem = _stem_csv(path).removesuffix(".csv")
                found.setdefault((path.parent, "" if part_usage(stem) is not None else stem), path)
        if found:
            return list(found.values())
    return []


def _has_labels(path: Path) -> bool:
    try:
        return read_header(path).has_labels
    except (OSError, UserError):
        return False


def _entries(folder: Path) -> list[Path]:
    """Return what a folder contains, sorted and without litter; nothing if it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if not is_litter(path.name))
    except OSError:
        return []


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted and without litter; nothing if it cannot be read."""
    return [path for path in _entries(folder) if path.is_dir()]


def _has_parts(folder: Path) -> bool:
    parts = [part for part in subfolders(folder) if part_usage(part.name) is not None]
    return any(has_image(below) for part in parts for below in subfolders(part))


def _has_classes(folder: Path) -> bool:
    """Return whether two or more subfolders with images have the names of known classes."""
    class_of = resolve_classes(part.name for part in subfolders(folder))[1]
    return sum(known_class(found) is not None and has_image(folder / name) for name, found in class_of.items()) > 1


def has_image(folder: Path, *, enter_links: bool = True) -> bool:
    """Return whether a folder, or one below it, contains an image; below a linked folder, further links are skipped."""
    return any(
        (enter_links or not path.is_symlink()) and has_image(path, enter_links=enter_links and not path.is_symlink())
        if path.is_dir()
        else path.suffix.lower() in SUFFIXES
        for path in _entries(folder)
    )
