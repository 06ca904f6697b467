"""Atomic file writes: write a temporary file in the same folder, sync it, rename it, sync the folder."""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

MAX_NAME = 255  # bytes of a file's name on common file systems


class WriteError(OSError):
    """A file or folder cannot be written."""


@contextlib.contextmanager
def writing(path: str | Path | None = None) -> Iterator[None]:
    """Raise an OSError of the block as WriteError of `path`, or without it of the file that the error names."""
    try:
        yield
    except (WriteError, BrokenPipeError):
        raise
    except OSError as error:
        name = path or error.filename
        if error.errno is None or name is None:  # of a library
            raise
        raise WriteError(error.errno, error.strerror, str(name)) from error


def make_folder(folder: Path) -> None:
    """Create a folder and those above it where they do not exist."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def write_atomically(path: str | Path, write: Callable[[Path], object], previous: Path | None = None) -> None:
    """Replace `path` by the file that `write` writes, or leave it unchanged if anything fails.

    Args:
        path: The file to replace.
        write: Receives the path of a temporary file with the same suffix and writes it.
        previous: Where to keep the file that `path` replaces.

    Raises:
        WriteError: The file cannot be written.
    """
    path = Path(path)
    temporary = temporary_path(path)
    with writing(path):
        try:
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            if previous and path.is_file():
                _link_or_copy(path, previous)
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Replace `path` by a file with this content atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: str | Path, text: str) -> None:
    """Replace `path` by UTF-8 text atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Replace `path` by an indented JSON object atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def temporary_path(path: Path) -> Path:
    """Return a new path in the same folder, with the same suffix, that `remove_partial` recognizes."""
    return path.with_name(fit_name(f".{path.stem}", f".{uuid.uuid4().hex[:12]}.partial{path.suffix}"))


def fit_name(stem: str, ending: str) -> str:
    """Return a file's name from its parts; the stem is cut off where the name would exceed `MAX_NAME`."""
    while stem and len(os.fsencode(stem + ending)) > MAX_NAME:
        stem = stem[:-1]
    return stem + ending


def remove_partial(*folders: Path) -> None:
    """Delete the temporary files of killed writers; call it only while nobody writes to the folders."""
    for folder in folders:
        for leftover in folder.glob(".*.partial*"):
            leftover.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk (a no-op on systems that cannot open folders)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _link_or_copy(path: Path, target: Path) -> None:
    """Make `target` the same file as `path`, or a copy where the file system has no links."""
    temporary = temporary_path(target)
    try:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
