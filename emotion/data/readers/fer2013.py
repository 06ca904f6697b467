"""FER2013's CSV files, with one row per face and its 2304 pixels in one column, plain or packed.

Columns are found by name. Quoted cells, a byte order mark, blank lines and further columns are read with Python's csv
module; the plain lines of the published file are split directly, which is faster.
"""

import csv
import re
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
from numpy.typing import NDArray

from emotion.data.discovery import COLUMNS, Header, locate_csv, read_header
from emotion.data.faces import EMOTIONS, PRIVATE_TEST, PUBLIC_TEST, TRAINING, USAGES, DataSource, FaceChunk
from emotion.data.names import known_class, part_usage, part_usages
from emotion.data.packed import is_packed, open_unpacked
from emotion.errors import UserError, counted, first_line
from emotion.io.bounded import read_lines

PUBLISHED_MD5 = "f8428a1edbd21e88f42c73edd2a14f95"
"""Of the published fer2013.csv, 35,887 rows; torchvision.datasets.FER2013 checks the same."""

SIDE = 48
CHUNK = 512  # rows
FACES_PER_BYTE = 35_887 / 301_072_766  # of the published file, for the progress bar
EXPECTED = "expected a header with the columns emotion, pixels and, except for a file of one part, Usage"


def read_csv(path: str) -> DataSource:
    """Read fer2013.csv, or a file of the same columns; rows keep file order, which FER+ relies on.

    Without a column Usage, the part is that of the file's name (train.csv, test.csv), and files of other parts beside
    it are read as well. A file that does not exist is looked for as `locate_csv` describes.

    Raises:
        UserError: The file is missing, empty or damaged, or has another header; while reading: it has no rows or an
            invalid row.
    """
    first = locate_csv(Path(path))
    parts, notes = _parts(first)
    files = [file for file, _, _ in parts]
    size = sum(file.stat().st_size * (3 if is_packed(file) else 1) for file in files)
    chunks = chain.from_iterable(_chunks(*part) for part in parts)
    num_faces = max(1, round(size * FACES_PER_BYTE))
    return DataSource(str(first), EMOTIONS, files, num_faces, chunks, names_matter=len(files) == 1, notes=notes)


read_icml_csv = read_csv
"""Reads icml_face_data.csv: the same rows with the columns in another order. Digests include this name."""


def read_faces(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the faces (n, 48, 48) of a CSV file with a column of pixels, whether or not it has labels.

    Raises:
        UserError: The file is damaged, or has no such column or no rows.
    """
    header = read_header(path)
    if not header.has_faces:
        raise UserError(f"{path} has the columns {', '.join(header.names)}; expected one named pixels.")
    return (chunk.images for chunk in _chunks(path, header, TRAINING, only_faces=True))


def _parts(first: Path) -> tuple[list[tuple[Path, Header, int]], list[str]]:
    """Return the files to read, with their headers and the usage of rows without one, and notes about them."""
    header = read_header(first)
    if not header.has_labels:
        with open_unpacked(first) as file:
            line = next(read_lines(file), b"").strip()
        raise UserError(f"{first} " + (f"begins with {_excerpt(line)}; " if line else "is empty; ") + f"{EXPECTED}.")
    others = [name for i, name in enumerate(header.names) if i not in map(header.place, COLUMNS)]
    notes = [f"{first.name}: left out the columns {', '.join(repr(name) for name in others)}"] if others else []
    parts = {first: header}
    if header.place("usage") is None and _part_of_name(first) is not None:
        by_stem = {_stem(first): first}
        for path in sorted(first.parent.iterdir(), key=lambda path: (len(path.name), path.name)):
            if path == first or _part_of_name(path) is None:
                continue
            if same := by_stem.get(_stem(path)):
                notes.append(f"left out: {path.name}, by its name a copy of {same.name}")
                continue
            try:
                other = read_header(path)
            except (OSError, UserError) as error:
                notes.append(f"left out: {path.name}: {first_line(error)}")
                continue
            if other.has_labels:
                parts[path] = other
                by_stem[_stem(path)] = path
            elif other.has_faces:
                notes.append(f"left out: {path.name}, whose faces have no labels (icml_face_data.csv has them)")
    usages = part_usages({path: path.name.partition(".")[0] for path in parts})
    if header.place("usage") is None:
        assumed = ", ".join(f"{path.name} is {USAGES[usage]}" for path, usage in usages.items())
        notes.append(f"no column Usage: {assumed}")
    return [(path, parts[path], usage) for path, usage in usages.items()], notes


def _part_of_name(path: Path) -> int | None:
    """Return the usage by the name of a CSV file such as test.csv.gz; None for other files."""
    return part_usage(path.name.partition(".")[0]) if path.suffix.lower() == ".csv" or is_packed(path) else None


def _stem(path: Path) -> str:
    """Return the same name for a file, the packed file and the copy `name (1)` that a second download makes."""
    return re.sub(r"\s*\(\d+\)$", "", path.name.lower().partition(".")[0])


def _chunks(path: Path, header: Header, default_usage: int, only_faces: bool = False) -> Iterator[FaceChunk]:
    """Yield the rows; with `only_faces`, their labels and usage are meaningless."""
    label_at, pixels_at, usage_at = (header.place(column) for column in COLUMNS)
    if only_faces:
        label_at = usage_at = None
    assert pixels_at is not None, "checked by the callers"
    labels_of: dict[bytes, int] = {str(index).encode(): index for index in range(len(EMOTIONS))}
    usage_of: dict[bytes, int] = {b"Training": TRAINING, b"PublicTest": PUBLIC_TEST, b"PrivateTest": PRIVATE_TEST}
    images = np.empty((CHUNK, SIDE * SIDE), np.uint8)
    labels, usage, origin = np.empty(CHUNK, np.uint8), np.empty(CHUNK, np.uint8), [""] * CHUNK
    labels[:], usage[:] = 0, default_usage
    filled = total = 0
    with open_unpacked(path) as file, warnings.catch_warnings():
        warnings.simplefilter(
            "error", DeprecationWarning
        )  # NumPy before 2.3 only warns about text that is not a number
        for row, (number, fields) in enumerate(_rows(path, file, header.delimiter)):
            if len(fields) != len(header.names):
                expected = f"{len(header.names)}: {header.delimiter.join(header.names)}"
                _refuse(path, row, number, counted(len(fields), "column"), expected, fields)
            if label_at is not None:
                label = labels_of.get(fields[label_at])
                if label is None:
                    label = labels_of[fields[label_at]] = _parse_label(path, row, number, fields[label_at], fields)
                labels[filled] = label
            if usage_at is not None:
                part = usage_of.get(fields[usage_at])
                if part is None:
                    part = usage_of[fields[usage_at]] = _parse_usage(path, row, number, fields[usage_at], fields)
                usage[filled] = part
            images[filled] = _parse_pixels(path, row, number, fields[pixels_at])
            origin[filled] = f"row {row}"
            filled += 1
            if filled == CHUNK:
                yield FaceChunk(images.reshape(-1, SIDE, SIDE), labels, usage, origin)
                filled, total = 0, total + CHUNK
    if filled:
        yield FaceChunk(images[:filled].reshape(-1, SIDE, SIDE), labels[:filled], usage[:filled], origin[:filled])
    if not filled + total:
        raise UserError(f"{path} has a header and no rows; expected one row per face.")


def _rows(path: Path, file: IO[bytes], delimiter: str) -> Iterator[tuple[int, Sequence[bytes]]]:
    """Yield the line number and the cells of each row after the header; rows without text are skipped."""
    numbered = enumerate(read_lines(file), 1)
    lines = (line for _, line in numbered)
    next(lines, None)
    separator = delimiter.encode()
    for number, line in numbered:
        if b'"' in line:
            text = (part.decode("utf-8", "surrogateescape") for part in chain([line], lines))
            try:
                cells = next(csv.reader(text, delimiter=delimiter))
            except csv.Error as error:
                raise UserError(f"{path}, line {number}: {error}; expected a CSV file.") from error
            yield number, [cell.encode("utf-8", "surrogateescape") for cell in cells]
        elif line.strip(b" \t\r\n" + separator):
            yield number, line.rstrip(b"\r\n").split(separator)


def _parse_label(path: Path, row: int, number: int, cell: bytes, fields: Sequence[bytes]) -> int:
    text = cell.decode("utf-8", "replace").strip()
    if (name := known_class(text)) in EMOTIONS:
        return EMOTIONS.index(name)
    try:
        value = float(text) if len(text) < 20 and text.isascii() and "_" not in text else -1
    except ValueError:
        value = -1
    if value not in range(len(EMOTIONS)):
        _refuse(path, row, number, f"label {_excerpt(cell)}", "0 to 6", fields)
    return int(value)


def _parse_usage(path: Path, row: int, number: int, cell: bytes, fields: Sequence[bytes]) -> int:
    usage = part_usage(cell.decode("utf-8", "replace"))
    if usage is None:
        _refuse(path, row, number, f"usage {_excerpt(cell)}", "Training, PublicTest or PrivateTest", fields)
    return usage


def _parse_pixels(path: Path, row: int, number: int, text: bytes) -> NDArray[np.int64]:
    try:
        values = np.fromstring(text, dtype=np.int64, sep=" ")
    except (ValueError, DeprecationWarning):
        token = next((token for token in text.split() if not token.isdigit()), text)
        _refuse(path, row, number, f"{_excerpt(token)} among the pixels", "integers from 0 to 255")
    if len(values) != SIDE * SIDE:
        _refuse(path, row, number, f"{len(values)} pixels", f"{SIDE * SIDE} ({SIDE} x {SIDE})")
    if values.view(np.uint64).max() > 255:  # as unsigned integers, negative values are large
        wrong = values[(values < 0) | (values > 255)][0]
        _refuse(path, row, number, f"pixel value {wrong}", "0 to 255")
    return values


def _refuse(path: Path, row: int, number: int, found: str, expected: str, fields: Sequence[bytes] = ()) -> NoReturn:
    hint = " (is the file truncated?)" if (fields and not fields[-1]) or found.endswith("columns") else ""
    raise UserError(
        f"{path}, row {row} (line {number}): found {found}, expected {expected}{hint}. "
        f"Fix or delete the line, or download the file again."
    )


def _excerpt(text: bytes) -> str:
    return repr(text[:40].decode("utf-8", "backslashreplace")) + ("..." if len(text) > 40 else "")
