"""What `source=` names in files: pictures and videos, alone, in folders, or by a pattern."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from emotion.data.readers.images import SUFFIXES
from emotion.errors import UserError

VIDEOS = {
    ".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
    ".webm", ".wmv",
}  # fmt: skip
EXPECTED = "a picture, a video, a folder, a pattern ('photos/*.jpg'), a camera's number (0), or - for standard input"


class File(NamedTuple):
    """A file to judge.

    Attributes:
        path: as it was named.
        kept: what its own results are called, relative to their folder; no two files share it.
    """

    path: Path
    kept: Path

    @property
    def video(self) -> bool:
        """By its name; a file of no known name is taken for a picture."""
        return self.path.suffix.lower() in VIDEOS


def files(named: Sequence[str], besides: Path | None = None) -> list[File]:
    """The pictures and videos that names stand for; folders with all that is below, in the order of their names.

    Args:
        named: files, folders and patterns; a file is taken whatever it is called.
        besides: a folder that is no source, such as the one that the results go to.

    Raises:
        UserError: a name stands for nothing.
    """
    own = besides.resolve() if besides else None
    paths = [path for name in named for path in _stands_for(name, own)]
    unique = list({os.path.abspath(path): path for path in paths}.items())
    root = os.path.commonpath([os.path.dirname(absolute) for absolute, _ in unique])
    return [File(path, Path(os.path.relpath(absolute, root))) for absolute, path in unique]


def _stands_for(name: str, besides: Path | None) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        shown = (found for found in path.rglob("*") if not _hidden(found.relative_to(path)))
        found = sorted(_known(shown, besides))
        if not found:
            raise UserError(f"{name} holds nothing to judge; expected {_kinds()}.")
        return found
    if glob.has_magic(name):
        found = sorted(_known(map(Path, glob.iglob(str(path), recursive=True)), besides))
        if not found:
            raise UserError(f"{name} fits nothing to judge; expected {_kinds()}.")
        return found
    raise UserError(f"{name} is not there; expected {EXPECTED}.")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _known(paths: Iterable[Path], besides: Path | None) -> Iterator[Path]:
    """Pictures and videos by their names, those in the folder `besides` left out."""
    for path in paths:
        if path.suffix.lower() in SUFFIXES | VIDEOS and path.is_file():
            if besides is None or not path.resolve().is_relative_to(besides):
                yield path


def _kinds() -> str:
    return f"pictures ({', '.join(sorted(SUFFIXES))}) or videos ({', '.join(sorted(VIDEOS))})"
