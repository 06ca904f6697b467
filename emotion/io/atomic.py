"""Files that are whole or not there: written beside their target, synced, moved into place, the folder synced."""

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: str | Path, write: Callable[[Path], object], former: Path | None = None) -> None:
    """Have `write` make a temporary file beside `path`, then put it in `path`'s place.

    Whatever happens in between, `path` is the former file or the new one. The temporary name keeps the suffix, which
    some writers go by, and begins with a dot. The former file is kept under the name `former`, where one is given.
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if former and path.is_file():
            _keep(path, former)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno:  # a full disk's names no file
            error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.partial{path.suffix}")


def _keep(path: Path, former: Path) -> None:
    """Have `former` be what `path` is, too: the same bytes on the disk, but where that knows no links."""
    temporary = _beside(former)
    try:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
        os.replace(temporary, former)
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial(*folders: Path) -> None:
    """Take away what a writer that was killed has left; of folders that nobody writes to at the time."""
    for folder in folders:
        for leftover in folder.glob(".*.partial*"):
            leftover.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def sync_folder(folder: Path) -> None:
    """Make the folder's entries survive a power cut (nothing to do where folders cannot be opened)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
