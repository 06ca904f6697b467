"""Checks of a checkpoint's content before memory is allocated for it."""

import mmap
import zipfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from emotion.errors import UserError

MAX_SETTINGS, MAX_DEPTH = 20_000, 60  # of hyperparameters, counting shared objects each time; ours have hundreds
ZIP_MAGIC = b"PK\x03\x04"
ALLOCATING_CALLS = (b"c_codecs\nencode\n", b"cbuiltins\nbytearray\n", b"c__builtin__\nbytearray\n")
"""Calls that torch's safe unpickler allows and that can build far more bytes than the file has."""


def check_archive(path: Path) -> None:
    """Refuse a damaged file of torch.save, or one that would unpack to more than its own size.

    The checksum of every zip entry is verified, which torch.load does not do.

    Raises:
        UserError: The file would unpack to more than its size.
        Exception: One of `emotion.io.bounded.READ_ERRORS`.
    """
    if not path.stat().st_size:
        raise EOFError("it is empty")
    with path.open("rb") as file:
        is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if any(content.find(call) >= 0 for call in ALLOCATING_CALLS):
                raise UserError(f"{path} holds more than tensors and settings; expected a file of torch.save.")
    if not is_zip:  # torch's former format
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        unpacked, size = sum(entry.file_size for entry in entries), path.stat().st_size
        if unpacked > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise UserError(
                f"{path} would unpack to {unpacked:,} bytes and has {size:,}; expected a file of torch.save, which "
                f"does not compress. It was not opened."
            )
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"the checksum of {damaged} does not match")


def check_settings(path: Path, settings: object) -> None:
    """Raise UserError for settings of unexpected types, or whose nesting or shared parts would multiply when copied."""
    try:
        _count_settings(settings, 0, {})
    except (TypeError, RecursionError) as error:
        raise UserError(f"{path} holds invalid settings: {error}. Use a file that this package wrote.") from error


def _count_settings(value: object, depth: int, counts: dict[int, int]) -> int:
    if value is None or isinstance(value, str | int | float):
        return 1
    if not isinstance(value, dict | list | tuple):
        raise TypeError(f"found {type(value).__name__}, expected numbers, strings, lists and mappings")
    if depth > MAX_DEPTH:
        raise RecursionError(f"more than {MAX_DEPTH} levels")
    if id(value) not in counts:
        children = [*value, *value.values()] if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_count_settings(child, depth + 1, counts) for child in children)
    if counts[id(value)] > MAX_SETTINGS:
        raise RecursionError(f"more than {MAX_SETTINGS:,} values")
    return counts[id(value)]


def check_shapes(path: Path, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise UserError if a tensor of a state dict is missing, unexpected or of another shape than in the network."""
    for name in dict.fromkeys([*expected, *state]):
        shapes = [tensors[name].shape if name in tensors else None for tensors in (state, expected)]
        if shapes[0] != shapes[1]:
            found, wanted = ("none" if shape is None else "x".join(map(str, shape)) or "()" for shape in shapes)
            raise UserError(
                f"{path} is not a checkpoint of this package: its weights do not fit its settings; "
                f"{name}: found {found}, expected {wanted}."
            )


def check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise UserError if weights contain NaN or infinity."""
    bad = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise UserError(
            f"{path} holds NaN or infinite values in {len(bad)} of {len(state)} tensors, the first of them {bad[0]}. "
            f"Use a checkpoint from before the training diverged."
        )
