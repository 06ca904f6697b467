"""Read a CSV file inside a gzip, bzip2, xz, zip or tar file as a stream, without unpacking it to disk."""

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any

from emotion.data.names import is_litter
from emotion.errors import UserError

COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
PLAIN = partial(open, buffering=1 << 20)
ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz")
OTHER_ARCHIVES = (".7z", ".rar", ".zst")
"""Formats that the standard library does not read."""

PREFERRED = ("fer2013.csv", "icml_face_data.csv", "train.csv")
"""The files of the 2013 contest that have labels, the most complete first."""

MAX_SEARCHED = 1000  # members of a tar file, which has no directory: finding a member unpacks those before it
ERRORS = (EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile)
ERRORS_OF_ZIP = (RuntimeError, NotImplementedError)  # a password is needed; an unknown compression


def is_packed(path: Path) -> bool:
    """Return whether a file is compressed or an archive, by its name."""
    return path.suffix.lower() in (*COMPRESSED, *ARCHIVES)


def is_archive(path: Path) -> bool:
    """Return whether a file is an archive, by its name."""
    endings = [suffix.lower() for suffix in path.suffixes[-2:]]
    return endings[-1:] > [] and (endings[-1] in ARCHIVES or (endings[-1] in COMPRESSED and endings[0] == ".tar"))


def members(path: Path) -> list[str]:
    """Return the names of an archive's files, of a tar file only the first `MAX_SEARCHED`.

    Raises:
        OSError: The file cannot be read.
        UserError: The archive is damaged.
    """
    with _report_damage(path):
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        else:
            with tarfile.open(path, "r|*") as stream:
                names = [entry.name for entry in islice(stream, MAX_SEARCHED) if entry.isfile()]
    return [name for name in names if not any(map(is_litter, PurePosixPath(name).parts))]


@contextmanager
def open_unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, or the CSV file in a packed one, for reading bytes.

    Raises:
        OSError: The file cannot be read.
        UserError: The packed file is damaged or has no CSV file; also while it is read.
    """
    with _report_damage(path):
        if not is_archive(path):
            with COMPRESSED.get(path.suffix.lower(), PLAIN)(path, "rb") as file:
                yield file
        elif path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive, _open_member(path, archive) as file:
                yield file
        else:
            with tarfile.open(path, "r|*") as stream:
                tables = (entry for entry in islice(stream, MAX_SEARCHED) if entry.isfile() and _is_table(entry.name))
                entry = next(tables, None)
                content = stream.extractfile(entry) if entry else None
                if content is None:
                    raise _no_table(path)
                yield content


def _open_member(path: Path, archive: zipfile.ZipFile) -> IO[bytes]:
    tables = sorted((name for name in archive.namelist() if _is_table(name)), key=preference)
    if not tables:
        raise _no_table(path)
    try:
        return archive.open(tables[0])
    except ERRORS_OF_ZIP as error:
        raise UserError(f"{path}: {tables[0]} cannot be unpacked ({error}); unpack it first.") from error


def preference(name: str) -> tuple[int, str]:
    """Return the sort key of a CSV file's name: the contest's files first."""
    base = PurePosixPath(name).name.lower()
    return PREFERRED.index(base) if base in PREFERRED else len(PREFERRED), name


def _is_table(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() == ".csv" and not any(map(is_litter, path.parts))


def _no_table(path: Path) -> UserError:
    return UserError(f"{path} contains no CSV file; expected fer2013.csv. Unpack it if it contains images.")


@contextmanager
def _report_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except ERRORS as error:
        raise UserError(f"{path} cannot be unpacked ({error}); is it complete? Download it again.") from error
