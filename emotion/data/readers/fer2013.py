"""Rows of a CSV file whose pixels stand in one column as 2304 numbers: FER2013's two published layouts."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from emotion.data.faces import EMOTIONS, USAGES, Reading, Rows
from emotion.errors import UserError
from emotion.io.bounded import lines

SIDE = 48
CHUNK = 512
FACES_PER_BYTE = 35_887 / 301_072_766  # of the published file, for the progress bar


def read_pixel_csv(path: Path, columns: Sequence[str]) -> Reading:
    """Rows of `path`, whose header must name `columns` in that order: emotion, pixels and Usage in any arrangement.

    Raises:
        UserError: the file is missing, empty or not text; the header differs; a row is not as announced.
    """
    if not path.is_file():
        raise UserError(
            f"{path} is not there. FER2013 is published on Kaggle (search 'fer2013.csv'); "
            f"put the file there, or say where it is: data_dir=FOLDER or EMOTION_DATA=FOLDER."
        )
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty; expected a header {','.join(columns)} and one row per face.")
    expected = max(1, round(path.stat().st_size * FACES_PER_BYTE))
    return Reading(str(path), EMOTIONS, [path], expected, _rows(path, columns))


def _rows(path: Path, columns: Sequence[str]) -> Iterator[Rows]:
    names = [column.strip() for column in columns]
    emotion, pixels, usage = (names.index(name) for name in ("emotion", "pixels", "Usage"))
    usages = {name.encode(): index for index, name in enumerate(USAGES[:3])}
    images = np.empty((CHUNK, SIDE * SIDE), np.uint8)
    labels, uses, origin = np.empty(CHUNK, np.uint8), np.empty(CHUNK, np.uint8), [""] * CHUNK
    filled = total = 0
    with path.open("rb", buffering=1 << 20) as file, warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # NumPy before 2.3 only warns of text that is no number
        rows = lines(file)
        _check_header(path, next(rows, b""), columns)
        for row, line in enumerate(rows):
            fields = line.rstrip(b"\r\n").split(b",")
            if len(fields) != len(columns):
                _refuse(path, row, f"{len(fields)} columns", f"{len(columns)}: {','.join(columns)}", fields)
            label, use = fields[emotion].strip(), usages.get(fields[usage].strip())
            if not (len(label) == 1 and b"0" <= label <= b"6"):
                _refuse(path, row, f"label {_shown(label)}", "0 to 6", fields)
            if use is None:
                _refuse(path, row, f"usage {_shown(fields[usage])}", "Training, PublicTest or PrivateTest", fields)
            images[filled] = _pixels(path, row, fields[pixels])
            labels[filled], uses[filled], origin[filled] = int(label), use, f"row {row}"
            filled += 1
            if filled == CHUNK:
                yield Rows(images.reshape(-1, SIDE, SIDE), labels, uses, origin)
                filled, total = 0, total + CHUNK
    if filled:
        yield Rows(images[:filled].reshape(-1, SIDE, SIDE), labels[:filled], uses[:filled], origin[:filled])
    if not filled + total:
        raise UserError(f"{path} has a header and no rows; expected one row per face.")


def _check_header(path: Path, line: bytes, columns: Sequence[str]) -> None:
    found = [name.strip().lower() for name in line.strip().split(b",")]
    if found != [column.strip().lower().encode() for column in columns]:
        raise UserError(f"{path} begins with {_shown(line.strip())}; expected the header {','.join(columns)}.")


def _pixels(path: Path, row: int, text: bytes) -> NDArray[np.int64]:
    try:
        values = np.fromstring(text, dtype=np.int64, sep=" ")
    except (ValueError, DeprecationWarning):
        token = next((t for t in text.split() if not t.isdigit()), text)
        _refuse(path, row, f"{_shown(token)} among the pixels", "whole numbers from 0 to 255")
    if len(values) != SIDE * SIDE:
        _refuse(path, row, f"{len(values)} pixels", f"{SIDE * SIDE} ({SIDE} x {SIDE})")
    if values.view(np.uint64).max() > 255:  # a negative number is a large one there
        wrong = values[(values < 0) | (values > 255)][0]
        _refuse(path, row, f"pixel value {wrong}", "0 to 255")
    return values


def _refuse(path: Path, row: int, found: str, expected: str, fields: Sequence[bytes] = ()) -> NoReturn:
    cut = " (is the file cut short?)" if (fields and not fields[-1]) or 0 < len(fields) < 3 else ""
    raise UserError(
        f"{path}, row {row} (line {row + 2}): found {found}, expected {expected}{cut}. "
        f"Mend or delete the line, or fetch the file again."
    )


def _shown(text: bytes) -> str:
    return repr(text[:40].decode("utf-8", "backslashreplace")) + ("..." if len(text) > 40 else "")


PUBLISHED_MD5 = "f8428a1edbd21e88f42c73edd2a14f95"
"""Of the published file, 35,887 rows; torchvision.datasets.FER2013 checks the same."""


def read_csv(path: str) -> Reading:
    """Rows keep file order, which the FER+ votes rely on. Raises UserError as `read_pixel_csv` does."""
    return read_pixel_csv(Path(path), ("emotion", "pixels", "Usage"))


def read_icml_csv(path: str) -> Reading:
    """Rows keep file order, which the FER+ votes rely on. Raises UserError as `read_pixel_csv` does."""
    return read_pixel_csv(Path(path), ("emotion", " Usage", " pixels"))
