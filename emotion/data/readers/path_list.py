"""Images listed in CSV files with the columns path and label: one file each for training, validation and test.

A label is a class name, or an index into label_map.json ({"angry": 0, ...}). A path is absolute, relative to the CSV
file, or relative to `root`.
"""

import csv
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion.data.faces import ORIGIN_BYTES, PRIVATE_TEST, PUBLIC_TEST, TRAINING, DataSource, FaceChunk
from emotion.data.names import MAX_CLASSES, class_key, merge_spellings
from emotion.data.readers.images import ImageFormat, read_images
from emotion.errors import UserError, counted, listing
from emotion.io.bounded import read_json, read_lines

if TYPE_CHECKING:
    from emotion.data.crop import Detector

USAGE = {"train": TRAINING, "val": PUBLIC_TEST, "test": PRIVATE_TEST}
MAX_SHOWN = 12  # classes in a message


def read(
    train: str | None = None,
    val: str | None = None,
    test: str | None = None,
    root: str | None = None,
    label_map: str | None = None,
    size: int = 224,
    channels: int = 3,
    detector: "Detector | None" = None,
) -> DataSource:
    """Read the rows of the CSV files in turn, with images converted as in `ImageFormat`.

    The usage is Training for `train`, PublicTest for `val`, PrivateTest for `test`. `root` is the folder of paths that
    are not relative to their CSV file. The classes are those of `label_map`, else of a label_map.json beside the first
    file, else all labels that occur, sorted; spellings of one name, such as Happy, happy and happiness, are one class.

    Raises:
        UserError: A file is missing or malformed, or rows have an invalid label or a missing image (all are listed);
            while reading: images cannot be read (all are listed).
    """
    form = ImageFormat(size, channels, detector).check()
    if root is not None and not Path(root).is_dir():
        raise UserError(f"{root} is not a folder; expected the base folder of the paths: data.root=FOLDER.")
    files = {name: Path(path) for name, path in zip(USAGE, (train, val, test), strict=True) if path is not None}
    if not files:
        raise UserError("data.train, data.val and data.test are null; expected at least one CSV file.")
    for name, path in files.items():
        if not path.is_file():
            mix = ", data.mix.source.train=FILE for data.mix" if name == "train" else ""
            raise UserError(
                f"{path} does not exist; expected a CSV file with the columns path and label. "
                f"Set its location: data.{name}=FILE (or data.{name}=null for none{mix})."
            )
    first = next(iter(files.values()))
    beside = first.parent / "label_map.json"
    map_file = Path(label_map) if label_map is not None else beside if beside.is_file() else None
    rows, classes, notes = _read_lists(list(files.values()), root, _read_label_map(map_file) if map_file else None)
    usage = np.array([USAGE[name] for name in files], np.uint8)[np.frombuffer(rows.lists, np.uint8)]
    content = SourceFiles([*files.values(), *([map_file] if map_file else [])], rows)
    chunks = _chunks(rows, usage, form)
    return DataSource(str(first), classes, content, len(rows), chunks, names_matter=False, notes=notes)


def _chunks(rows: "FileList", usage: NDArray[np.uint8], form: ImageFormat) -> Iterator[FaceChunk]:
    for numbers, images, without_face in read_images(rows, form, rows.describe, str(rows.files[0])):
        part = slice(numbers.start, numbers.stop)
        labels = np.array(rows.labels[part], np.uint8)
        yield FaceChunk(images, labels, usage[part], [rows.origin(row) for row in numbers], None, without_face)


class FileList:
    """The rows of all CSV files in flat arrays: some bytes per row, where a Path and a string take half a kilobyte.

    As a sequence it contains the path of each row's image.
    """

    def __init__(self, files: Sequence[Path], root: str | None) -> None:
        self.files = files
        self.lists, self.lines, self.labels = array("B"), array("L"), array("L")  # index into files, line, class
        self._folders = [*(str(file.parent) for file in files), *([root] if root else [])]
        self._folder_of_row, self._hashes = array("B"), array("q")
        self._paths, self._path_ends = bytearray(), array("Q", [0])

    def append(self, file: int, line: int, path: str, label: int) -> bool:
        """Add a row of the file with index `file` if its image exists; return whether it does."""
        for folder in (file, *range(len(self.files), len(self._folders))):
            location = os.path.join(self._folders[folder], path)
            if os.path.isfile(location):
                self.lists.append(file)
                self.lines.append(line)
                self.labels.append(label)
                self._folder_of_row.append(folder)
                self._hashes.append(hash(location))
                self._paths += path.encode()
                self._path_ends.append(len(self._paths))
                return True
        return False

    def __len__(self) -> int:
        return len(self.lists)

    def __getitem__(self, row: int) -> Path:
        return Path(self._folders[self._folder_of_row[row]], self._path(row))

    def _path(self, row: int) -> str:
        return self._paths[self._path_ends[row] : self._path_ends[row + 1]].decode()

    def describe(self, row: int) -> str:
        """Return file, line and path of a row for messages."""
        return f"{self.files[self.lists[row]]} line {self.lines[row]}: {self._path(row)}"

    def origin(self, row: int) -> str:
        """Return "train.csv line 17: happy/a.png", with the end of the path only if it is too long."""
        prefix, path = f"{self.files[self.lists[row]].name[-32:]} line {self.lines[row]}: ", self._path(row)
        room = ORIGIN_BYTES - len(prefix.encode())
        return prefix + (path if len(path.encode()) <= room else path.encode()[-room:].decode(errors="ignore"))

    def distinct(self) -> NDArray[np.intp]:
        """Return the first row of each image, sorted; images whose locations share a 64-bit hash count as one."""
        return np.sort(np.unique(np.array(self._hashes), return_index=True)[1])


class SourceFiles:
    """The files of the source, re-iterable: the CSV files, the label map, and each image once."""

    def __init__(self, lists: Sequence[Path], images: FileList) -> None:
        self._lists, self._images, self._distinct = lists, images, images.distinct()

    def __iter__(self) -> Iterator[Path]:
        yield from self._lists
        yield from (self._images[row] for row in self._distinct)


class _Line(NamedTuple):
    number: int
    path: str = ""
    label: str = ""
    error: str = ""


def _read_lists(
    files: Sequence[Path], root: str | None, classes: Sequence[str] | None
) -> tuple[FileList, list[str], list[str]]:
    """Return the rows of all files, the classes and notes; without given classes those are the labels that occur."""
    rows = FileList(files, root)
    problems: list[str] = []
    codes = {str(index): index for index in range(len(classes or ()))}
    codes |= {name: index for index, name in enumerate(classes or ())}  # a class name that is a number is a name
    by_key = {class_key(name): index for name, index in codes.items()}
    for index, file in enumerate(files):
        before = len(rows) + len(problems)
        for line in _read_lines(file):
            if line.label and line.label not in codes and (not classes or class_key(line.label) in by_key):
                codes[line.label] = by_key[class_key(line.label)] if classes else len(codes)
            reasons = [line.error] if line.error else [] if line.label in codes else [f"label {line.label!r}"]
            if not line.path and not line.error:
                reasons.append("no path")
            elif line.path and not rows.append(index, line.number, line.path, codes.get(line.label, 0)):
                reasons.append(f"{line.path} does not exist")
            if reasons:
                problems.append(f"{file} line {line.number}: {', '.join(reasons)}")
        if len(rows) + len(problems) == before:
            raise UserError(f"{file} has a header and no rows; expected one row per image.")
    merged, notes = ({}, []) if classes else merge_spellings(codes)
    ordered = list(classes or sorted(set(merged.values()), key=_label_order))
    if len(ordered) > MAX_CLASSES:
        raise UserError(
            f"{files[0]}: {len(ordered)} classes, {_excerpt(ordered)}; expected at most {MAX_CLASSES}. "
            f"Is label the column of the classes?"
        )
    if problems:
        locations = "absolute, or relative to the CSV file" + (f" or to {root}" if root else " or to data.root=FOLDER")
        raise UserError(
            f"{counted(len(problems), 'row')} of {', '.join(map(str, files))} cannot be used; expected the path of "
            f"an image ({locations}) and a label of {_excerpt(ordered)}{' or its index' if classes else ''}:"
            f"{listing(problems)}"
        )
    if not classes:
        ranks = np.array([ordered.index(merged[label]) for label in codes], np.uint8)
        rows.labels = array("B", ranks[np.array(rows.labels)].tobytes())
    return rows, ordered, notes


def _read_lines(file: Path) -> Iterator[_Line]:
    """Yield the rows of a CSV file, stripped; rows without text are skipped.

    Raises:
        UserError: The file has other columns, or is not CSV in UTF-8.
    """
    with file.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(read_lines(text))
        try:
            header = [name.strip().lower() for name in next(reader, [])]
            if header.count("path") != 1 or header.count("label") != 1:
                raise UserError(
                    f"{file} begins with {','.join(header)[:80] or 'an empty line'!r}; "
                    f"expected a header with the columns path and label."
                )
            path, label = header.index("path"), header.index("label")
            for row in reader:
                cells = [cell.strip() for cell in row]
                if any(cells) and len(cells) != len(header):
                    error = f"{counted(len(cells), 'column')}, but the header has {len(header)}"
                    yield _Line(reader.line_num, error=error)
                elif any(cells):
                    yield _Line(reader.line_num, cells[path], cells[label])
        except csv.Error as error:
            raise UserError(f"{file} line {reader.line_num}: {error}; expected a CSV file.") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{file} is not UTF-8 after line {reader.line_num}; expected UTF-8 text.") from error


def _read_label_map(file: Path) -> list[str]:
    """Return the classes of label_map.json in the order of their indices."""
    expected = f'expected {{"angry": 0, ...}} with the indices 0, 1, 2, ... of at most {MAX_CLASSES} classes.'
    try:
        indices = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}; {expected}") from error
    if not isinstance(indices, dict) or not all(type(index) is int for index in indices.values()):
        raise UserError(f"{file} does not map names to integers; {expected}")
    if not 0 < len(indices) <= MAX_CLASSES or sorted(indices.values()) != list(range(len(indices))):
        raise UserError(
            f"{file} has {counted(len(indices), 'class')} with indices {_excerpt(sorted(indices.values()))}; {expected}"
        )
    return sorted(indices, key=indices.__getitem__)


def _label_order(label: str) -> tuple[bool, int, str]:
    """Return a sort key: numbers first, by value."""
    is_number = label.isdecimal() and len(label) < 20  # Python refuses to parse thousands of digits
    return (not is_number, int(label) if is_number else 0, label)


def _excerpt(values: Sequence[object]) -> str:
    return ", ".join(map(str, values[:MAX_SHOWN])) + (", ..." if len(values) > MAX_SHOWN else "")
