"""Images listed in CSV files with the columns path and label: one file trains, one is PublicTest, one PrivateTest.

A label is a class's name, or its index in label_map.json ({"angry": 0, ...}). A path is absolute, or relative to the
CSV file, or else to `root`.
"""

import csv
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion.data.faces import ORIGIN_BYTES, PRIVATE_TEST, PUBLIC_TEST, TRAINING, Reading, Rows
from emotion.data.readers.images import read_images
from emotion.errors import UserError, listing
from emotion.io.bounded import json_of, lines


class Listed:
    """The rows of all lists at some bytes each, where a Path and a name for every row took half a kilobyte."""

    def __init__(self, files: Sequence[Path], root: str | None) -> None:
        self.files = files
        self.lists, self.lines, self.labels = array("B"), array("L"), array("L")
        self._folders = [*(str(file.parent) for file in files), *([root] if root else [])]
        self._folder, self._paths, self._ends, self._hashes = array("B"), bytearray(), array("Q", [0]), array("q")

    def append(self, number: int, line: int, path: str, label: int) -> bool:
        """Add a row of the list `number`; whether its image is there."""
        for folder in (number, *range(len(self.files), len(self._folders))):
            if os.path.isfile(place := os.path.join(self._folders[folder], path)):
                self._paths += path.encode()
                for column, value in (
                    (self.lists, number), (self.lines, line), (self.labels, label),
                    (self._folder, folder), (self._ends, len(self._paths)), (self._hashes, hash(place)),
                ):  # fmt: skip
                    column.append(value)
                return True
        return False

    def __len__(self) -> int:
        return len(self.lists)

    def __getitem__(self, row: int) -> Path:
        return Path(self._folders[self._folder[row]], self._path(row))

    def _path(self, row: int) -> str:
        return self._paths[self._ends[row] : self._ends[row + 1]].decode()

    def where(self, row: int) -> str:
        """For a message."""
        return f"{self.files[self.lists[row]]} line {self.lines[row]}: {self._path(row)}"

    def origin(self, row: int) -> str:
        """train.csv line 17: happy/a.png, the path's end where it is too long."""
        where, path = f"{self.files[self.lists[row]].name[-32:]} line {self.lines[row]}: ", self._path(row)
        room = ORIGIN_BYTES - len(where.encode())
        return where + (path if len(path.encode()) <= room else path.encode()[-room:].decode(errors="ignore"))

    def distinct(self) -> NDArray[np.intp]:
        """The first row of each image, in order; two whose names share a 64-bit hash count as one."""
        return np.sort(np.unique(np.array(self._hashes), return_index=True)[1])


class Content:
    """What the source consists of: the lists, the label map and each image once."""

    def __init__(self, lists: Sequence[Path], images: Listed) -> None:
        self._lists, self._images, self._distinct = lists, images, images.distinct()

    def __iter__(self) -> Iterator[Path]:
        yield from self._lists
        yield from (self._images[row] for row in self._distinct)


MOST_CLASSES = 255
SHOWN = 12  # classes in a message


def read(
    train: str,
    val: str | None = None,
    test: str | None = None,
    root: str | None = None,
    label_map: str | None = None,
    size: int = 224,
    channels: int = 3,
) -> Reading:
    """Rows of the three files one after the other, their images made `size` x `size`: see `read_images`.

    The classes are those of `label_map`, else of a label_map.json beside `train`, else all labels that occur, sorted.

    Raises:
        UserError: a file is missing or malformed; a list of all rows whose label or image is not there; when the rows
            are read, a list of all images that cannot be.
    """
    if channels not in (1, 3) or size < 1:
        raise UserError(f"data.size={size} data.channels={channels}: expected a size from 1 on, and 1 or 3 channels.")
    if root is not None and not Path(root).is_dir():
        raise UserError(f"{root} is not a folder; expected the one that the paths are relative to: data.root=FOLDER.")
    given = {"train": train, "val": val, "test": test}
    files = {part: Path(path) for part, path in given.items() if path is not None}
    for part, file in files.items():
        if not file.is_file():
            mixed_in = ", or for what is mixed in data.mix.source.train=FILE"
            without = mixed_in if part == "train" else f", or do without: data.{part}=null"
            raise UserError(
                f"{file} is not there; expected a CSV file with the columns path and label. "
                f"Say where it is: data.{part}=FILE{without}."
            )
    beside = Path(train).parent / "label_map.json"
    mapping = Path(label_map) if label_map is not None else beside if beside.is_file() else None
    rows, classes = _listed(list(files.values()), root, _read_map(mapping) if mapping else None)
    usages = {"train": TRAINING, "val": PUBLIC_TEST, "test": PRIVATE_TEST}
    usage = np.array([usages[part] for part in files], np.uint8)[np.frombuffer(rows.lists, np.uint8)]
    content = Content([*files.values(), *([mapping] if mapping else [])], rows)
    return Reading(train, classes, content, len(rows), _rows(rows, usage, size, channels), named=False)


def _rows(rows: Listed, usage: NDArray[np.uint8], size: int, channels: int) -> Iterator[Rows]:
    for places, images in read_images(rows, size, channels, rows.where, str(rows.files[0])):
        part = slice(places.start, places.stop)
        labels = np.array(rows.labels[part], np.uint8)
        yield Rows(images, labels, usage[part], [rows.origin(place) for place in places])


def _listed(files: Sequence[Path], root: str | None, classes: Sequence[str] | None) -> tuple[Listed, list[str]]:
    """The rows of all lists, and the classes, which unless they are given are the labels that occur."""
    rows = Listed(files, root)
    problems: list[str] = []
    codes = {str(index): index for index in range(len(classes or ()))}
    codes |= {name: index for index, name in enumerate(classes or ())}  # a name that is a number is a name
    for number, file in enumerate(files):
        before = len(rows) + len(problems)
        for line, path, label, reason in _lines(file):
            if label and not classes:
                codes.setdefault(label, len(codes))
            reasons = [reason] if reason else [] if label in codes else [f"label {label!r}"]
            if not path and not reason:
                reasons.append("no path")
            elif path and not rows.append(number, line, path, codes.get(label, 0)):
                reasons.append(f"{path} is not there")
            if reasons:
                problems.append(f"{file} line {line}: {', '.join(reasons)}")
        if len(rows) + len(problems) == before:
            raise UserError(f"{file} has a header and no rows; expected one row per image.")
    ordered = list(classes or sorted(codes, key=_in_order))
    if len(ordered) > MOST_CLASSES:
        raise UserError(
            f"{files[0]}: {len(ordered)} classes, {_shown(ordered)}; expected at most {MOST_CLASSES}. "
            f"Is label the column of the classes?"
        )
    if problems:
        places = "absolute, or relative to the CSV file" + (f" or to {root}" if root else "; or give data.root=FOLDER")
        raise UserError(
            f"{len(problems)} rows of {', '.join(map(str, files))} cannot be used; expected the path of an image "
            f"({places}) and a label of {_shown(ordered)}{' or its index' if classes else ''}:{listing(problems)}"
        )
    if not classes:
        ranks = np.array([ordered.index(label) for label in codes], np.uint8)
        rows.labels = array("B", ranks[np.array(rows.labels)].tobytes())
    return rows, ordered


def _lines(file: Path) -> Iterator[tuple[int, str, str, str]]:
    """Line number, path and label of each row, stripped of blanks, or what is wrong with it; empty lines do not count.

    Raises:
        UserError: the file has other columns, or is not a CSV file in UTF-8.
    """
    with file.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(lines(text))
        try:
            header = [name.strip().lower() for name in next(reader, [])]
            if header.count("path") != 1 or header.count("label") != 1:
                raise UserError(
                    f"{file} begins with {','.join(header)[:80] or 'an empty line'!r}; "
                    f"expected a header with the columns path and label."
                )
            path, label = header.index("path"), header.index("label")
            for row in reader:
                if row and len(row) != len(header):
                    yield reader.line_num, "", "", f"{len(row)} columns where the header has {len(header)}"
                elif row:
                    yield reader.line_num, row[path].strip(), row[label].strip(), ""
        except csv.Error as error:
            raise UserError(f"{file} line {reader.line_num}: {error}; expected a CSV file.") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{file} is not UTF-8 after line {reader.line_num}; expected UTF-8 text.") from error


def _read_map(file: Path) -> list[str]:
    """The classes of label_map.json in the order of their indices."""
    expected = f'expected {{"angry": 0, ...}}, its indices from 0 on without a gap, {MOST_CLASSES} classes at most.'
    try:
        indices = json_of(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}; {expected}") from error
    if not isinstance(indices, dict) or not all(type(index) is int for index in indices.values()):
        raise UserError(f"{file} holds something else; {expected}")
    if not 0 < len(indices) <= MOST_CLASSES or sorted(indices.values()) != list(range(len(indices))):
        raise UserError(f"{file} has {len(indices)} classes of indices {_shown(sorted(indices.values()))}; {expected}")
    return sorted(indices, key=indices.__getitem__)


def _in_order(label: str) -> tuple[bool, int, str]:
    """Numbers first, as numbers."""
    is_number = label.isdecimal() and len(label) < 20  # Python refuses to read thousands of digits
    return (not is_number, int(label) if is_number else 0, label)


def _shown(values: Sequence[object]) -> str:
    return ", ".join(map(str, values[:SHOWN])) + (", ..." if len(values) > SHOWN else "")
