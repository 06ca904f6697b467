"""FER2013's two published CSV files, with one row per face and its 2304 pixels in one column."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from emotion.data.faces import EMOTIONS, USAGES, DataSource, FaceChunk
from emotion.errors import UserError
from emotion.io.bounded import read_lines

PUBLISHED_MD5 = "f8428a1edbd21e88f42c73edd2a14f95"
"""Of the published fer2013.csv, 35,887 rows; torchvision.datasets.FER2013 checks the same."""

SIDE = 48
CHUNK = 512  # rows
FACES_PER_BYTE = 35_887 / 301_072_766  # of the published file, for the progress bar


def read_csv(path: str) -> DataSource:
    """Read fer2013.csv; rows keep file order, which FER+ relies on. Raises UserError as `read_pixel_csv` does."""
    return read_pixel_csv(Path(path), ("emotion", "pixels", "Usage"))


def read_icml_csv(path: str) -> DataSource:
    """Read icml_face_data.csv: the same rows with other columns. Raises UserError as `read_pixel_csv` does."""
    return read_pixel_csv(Path(path), ("emotion", " Usage", " pixels"))


def read_pixel_csv(path: Path, columns: Sequence[str]) -> DataSource:
    """Read a CSV file whose header is `columns`: emotion, pixels and Usage in any order.

    Raises:
        UserError: The file is missing or empty; while reading: it has another header, no rows or an invalid row.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist. FER2013 is published on Kaggle (search 'fer2013.csv'); "
            f"put the file there, or set its folder: data_dir=FOLDER or EMOTION_DATA=FOLDER."
        )
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty; expected a header {','.join(columns)} and one row per face.")
    num_faces = max(1, round(path.stat().st_size * FACES_PER_BYTE))
    return DataSource(str(path), EMOTIONS, [path], num_faces, _chunks(path, columns))


def _chunks(path: Path, columns: Sequence[str]) -> Iterator[FaceChunk]:
    names = [column.strip() for column in columns]
    label_column, pixel_column, usage_column = (names.index(name) for name in ("emotion", "pixels", "Usage"))
    usages = {name.encode(): index for index, name in enumerate(USAGES[:3])}
    images = np.empty((CHUNK, SIDE * SIDE), np.uint8)
    labels, usage, origin = np.empty(CHUNK, np.uint8), np.empty(CHUNK, np.uint8), [""] * CHUNK
    filled = total = 0
    with path.open("rb", buffering=1 << 20) as file, warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # NumPy before 2.3 only warns about text that is no number
        lines = read_lines(file)
        _check_header(path, next(lines, b""), columns)
        for row, line in enumerate(lines):
            fields = line.rstrip(b"\r\n").split(b",")
            if len(fields) != len(columns):
                _refuse(path, row, f"{len(fields)} columns", f"{len(columns)}: {','.join(columns)}", fields)
            label, usage_index = fields[label_column].strip(), usages.get(fields[usage_column].strip())
            if not (len(label) == 1 and b"0" <= label <= b"6"):
                _refuse(path, row, f"label {_excerpt(label)}", "0 to 6", fields)
            if usage_index is None:
                name = _excerpt(fields[usage_column])
                _refuse(path, row, f"usage {name}", "Training, PublicTest or PrivateTest", fields)
            images[filled] = _parse_pixels(path, row, fields[pixel_column])
            labels[filled], usage[filled], origin[filled] = int(label), usage_index, f"row {row}"
            filled += 1
            if filled == CHUNK:
                yield FaceChunk(images.reshape(-1, SIDE, SIDE), labels, usage, origin)
                filled, total = 0, total + CHUNK
    if filled:
        yield FaceChunk(images[:filled].reshape(-1, SIDE, SIDE), labels[:filled], usage[:filled], origin[:filled])
    if not filled + total:
        raise UserError(f"{path} has a header and no rows; expected one row per face.")


def _check_header(path: Path, line: bytes, columns: Sequence[str]) -> None:
    names = [name.strip().lower() for name in line.strip().split(b",")]
    if names != [column.strip().lower().encode() for column in columns]:
        raise UserError(f"{path} begins with {_excerpt(line.strip())}; expected the header {','.join(columns)}.")


def _parse_pixels(path: Path, row: int, text: bytes) -> NDArray[np.int64]:
    try:
        values = np.fromstring(text, dtype=np.int64, sep=" ")
    except (ValueError, DeprecationWarning):
        token = next((token for token in text.split() if not token.isdigit()), text)
        _refuse(path, row, f"{_excerpt(token)} among the pixels", "integers from 0 to 255")
    if len(values) != SIDE * SIDE:
        _refuse(path, row, f"{len(values)} pixels", f"{SIDE * SIDE} ({SIDE} x {SIDE})")
    if values.view(np.uint64).max() > 255:  # as unsigned integers, negative values are large
        wrong = values[(values < 0) | (values > 255)][0]
        _refuse(path, row, f"pixel value {wrong}", "0 to 255")
    return values


def _refuse(path: Path, row: int, found: str, expected: str, fields: Sequence[bytes] = ()) -> NoReturn:
    hint = " (is the file truncated?)" if (fields and not fields[-1]) or 0 < len(fields) < 3 else ""
    raise UserError(
        f"{path}, row {row} (line {row + 2}): found {found}, expected {expected}{hint}. "
        f"Fix or delete the line, or download the file again."
    )


def _excerpt(text: bytes) -> str:
    return repr(text[:40].decode("utf-8", "backslashreplace")) + ("..." if len(text) > 40 else "")
