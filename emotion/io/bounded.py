"""Read text, JSON and arrays from files of unknown origin in bounded memory."""

import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, AnyStr

from emotion.errors import REFUSALS, UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_TEXT_BYTES = 4_000_000  # of JSON and YAML; the record of a run has about 33,000
MAX_LINE_LENGTH = 1 << 20  # of a CSV file; a row of FER2013 has about 9,000
MAX_ARRAY_BYTES = 256_000_000  # uncompressed, of an .npz file

READ_ERRORS = (
    *(OSError, EOFError, SyntaxError, struct.error, zlib.error, zipfile.BadZipFile, pickle.UnpicklingError),
    *REFUSALS,
)
"""Exceptions that torch and NumPy raise for files that are damaged or of another format."""


def read_text(path: Path) -> str:
    """Return the content of a UTF-8 text file.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is larger than `MAX_TEXT_BYTES` or is not UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise ValueError(f"it has {path.stat().st_size:,} bytes, expected at most {MAX_TEXT_BYTES:,}")
    return content.decode("utf-8-sig")


def read_json(path: Path) -> object:
    """Return the content of a JSON file.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is too large, is not JSON or is nested too deeply.
    """
    return parse_json(read_text(path))


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file that holds an object; `sha256`, which former versions wrote, is dropped.

    Raises:
        UserError: The file cannot be read or holds something else.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}. Restore it from a copy.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, expected a JSON object. Restore it from a copy.")
    content.pop("sha256", None)
    return content


def parse_json(text: str) -> object:
    """Parse JSON; raises ValueError if the text is not JSON or is nested too deeply."""
    try:
        content: object = json.loads(text)
        return content
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_lines(file: IO[AnyStr]) -> Iterator[AnyStr]:
    """Yield the lines of a file, splitting those longer than `MAX_LINE_LENGTH`."""
    while line := file.readline(MAX_LINE_LENGTH):
        yield line


def read_arrays(path: Path) -> "dict[str, NDArray[Any]]":
    """Return the arrays of an .npz file by name, refusing arrays of objects.

    Raises:
        Exception: One of `READ_ERRORS`; ValueError if the arrays would take more than `MAX_ARRAY_BYTES`.
    """
    import numpy as np

    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_ARRAY_BYTES:
            raise ValueError(f"it unpacks to {size:,} bytes, expected at most {MAX_ARRAY_BYTES:,}")
        for entry in archive.infolist():
            with archive.open(entry) as file:
                version = np.lib.format.read_magic(file)
                if version not in headers:
                    raise ValueError(f"{entry.filename} has version {version} of NumPy's format, expected 1.0 or 2.0")
                shape, _, dtype = headers[version](file)
                if dtype.hasobject or int(np.prod(shape, dtype=object)) * dtype.itemsize > entry.file_size:
                    raise ValueError(f"{entry.filename} announces {dtype} {shape}, which it does not contain")
            with archive.open(entry) as file:
                arrays[entry.filename.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays
