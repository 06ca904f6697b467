"""What a text, and the settings in it, may cost before they are known to be ours."""

import json
import mmap
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, AnyStr

from emotion.errors import REFUSALS, UserError

if TYPE_CHECKING:  # neither is needed to bound a text
    from numpy.typing import NDArray
    from torch import Tensor

MOST_TEXT = 4_000_000  # bytes of JSON and YAML; a run's record has 33,000
LONGEST_LINE = 1 << 20  # of a CSV file; a face of FER2013 takes 9,000
MOST_NODES, DEEPEST = 20_000, 60  # of settings, what is named twice counted twice; ours have hundreds
PLAIN = (str, int, float, type(None))


def text_of(path: Path, most: int = MOST_TEXT) -> str:
    """A text file's content.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than `most`, or not UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has {path.stat().st_size:,} bytes, expected at most {most:,}")
    return content.decode("utf-8-sig")


def json_of(path: Path, most: int = MOST_TEXT) -> object:
    """A JSON file's content.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than `most`, no JSON, or nested deeper than any of ours.
    """
    return parsed(text_of(path, most))


def parsed(text: str) -> object:
    """Raises ValueError where a text is no JSON, or nested deeper than any of ours."""
    try:
        found: object = json.loads(text)
        return found
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def lines(file: IO[AnyStr]) -> Iterator[AnyStr]:
    """A file's lines, none longer than `LONGEST_LINE`: what is left of one comes as the next."""
    while line := file.readline(LONGEST_LINE):
        yield line


def check_settings(path: Path, settings: object) -> None:
    """Refuse settings that are more than settings: of other types, too deep, or of parts that are named over and over.

    Raises:
        UserError: naming the file.
    """
    try:
        _count(settings, 0, {})
    except (TypeError, RecursionError) as error:
        raise UserError(f"{path} holds no settings of ours: {error}. Take a file that this package wrote.") from error


def _count(value: object, depth: int, counted: dict[int, int]) -> int:
    """How much there is in a value, what is named twice counted twice."""
    if isinstance(value, PLAIN):
        return 1
    if not isinstance(value, dict | list | tuple):
        raise TypeError(f"found {type(value).__name__}, expected numbers, texts, lists and mappings")
    if depth > DEEPEST:
        raise RecursionError(f"they have more than {DEEPEST} levels")
    if id(value) not in counted:
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        counted[id(value)] = 1 + sum(_count(item, depth + 1, counted) for item in inner)
    if counted[id(value)] > MOST_NODES:
        raise RecursionError(f"they have more than {MOST_NODES:,} parts")
    return counted[id(value)]


UNREADABLE = (
    *(OSError, EOFError, SyntaxError, struct.error, zlib.error, zipfile.BadZipFile, pickle.UnpicklingError),
    *REFUSALS,
)
"""What torch and NumPy raise at files that are none of theirs, or not whole."""

MOST_ARRAYS = 256_000_000  # bytes, unpacked, of what is written for each face
ZIP = b"PK\x03\x04"
GROWING = (b"c_codecs\nencode\n", b"cbuiltins\nbytearray\n", b"c__builtin__\nbytearray\n")


def check_archive(path: Path) -> None:
    """Refuse a file that torch.load would make more of than it holds, though nothing in it can run.

    In a zip archive, what is packed: torch.save packs nothing. In any file, the calls of a pickle that torch allows for
    bytes, by which a few hundred of them grow without end.

    Raises:
        UserError: it would unpack to more.
        Exception: one of `UNREADABLE`.
    """
    with path.open("rb") as file:
        is_zip = file.read(len(ZIP)) == ZIP
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if any(content.find(call) >= 0 for call in GROWING):
                raise UserError(f"{path} holds more than numbers and settings; expected a file of torch.save.")
    if not is_zip:  # torch does not take it for one either
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    announced, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if announced > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UserError(
            f"{path} would unpack to {announced:,} bytes and has {size:,}; expected a file of torch.save, in which "
            f"nothing is packed. It was not opened."
        )


def arrays_of(path: Path, most: int = MOST_ARRAYS) -> "dict[str, NDArray[Any]]":
    """The arrays of an .npz file, none of them of objects.

    Raises:
        Exception: one of `UNREADABLE`; a ValueError where it has or announces more than `most` bytes.
    """
    import numpy as np

    found = {}
    with zipfile.ZipFile(path) as archive:
        announced = sum(entry.file_size for entry in archive.infolist())
        if announced > most:
            raise ValueError(f"it unpacks to {announced:,} bytes, expected at most {most:,}")
        for entry in archive.infolist():
            with archive.open(entry) as file:
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                version = np.lib.format.read_magic(file)
                if version not in read:
                    raise ValueError(f"{entry.filename} is of version {version} of NumPy's format")
                shape, _, dtype = read[version](file)
                if dtype.hasobject or int(np.prod(shape, dtype=object)) * dtype.itemsize > entry.file_size:
                    raise ValueError(f"{entry.filename} announces {dtype} {shape}, which it does not hold")
            with archive.open(entry) as file:
                found[entry.filename.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    return found


def check_shapes(path: Path, announced: "Mapping[str, Tensor]", state: "Mapping[str, Tensor]") -> None:
    """Refuse weights that are not of the network which is announced, before that takes any memory.

    Raises:
        UserError: naming the first that is missing, is too many or has another shape.
    """
    for name in dict.fromkeys([*announced, *state]):
        own, given = (some[name].shape if name in some else None for some in (announced, state))
        if own != given:
            shown = ["none" if shape is None else "x".join(map(str, shape)) or "()" for shape in (given, own)]
            raise UserError(
                f"{path} is not a checkpoint of this package: its settings announce other weights than it holds; "
                f"{name}: found {shown[0]}, expected {shown[1]}."
            )


def check_finite(path: Path, state: "Mapping[str, Tensor]") -> None:
    """Refuse weights that are no numbers.

    Raises:
        UserError: naming the first of them.
    """
    wrong = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise UserError(
            f"{path} is no classifier: {len(wrong)} of {len(state)} tensors hold values that are no finite numbers, "
            f"{wrong[0]} among them. Take another checkpoint, from before the training went wrong."
        )
