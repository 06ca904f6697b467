"""Find the files that `source=` names: images and videos, alone, in folders, or matched by a pattern."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from emotion.checkpoints.locate import CHECKPOINTS
from emotion.data.names import is_litter
from emotion.data.readers.images import SUFFIXES
from emotion.errors import UserError, counted
from emotion.inference.images import is_animated_gif

VIDEO_SUFFIXES = {
    ".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
    ".webm", ".wmv",
}  # fmt: skip
EXPECTED = (
    "an image, a video, a folder, a pattern ('photos/*.jpg'), an address (https://, rtsp://), a camera's number (0), "
    "a CSV file of pixels, or - for standard input"
)
TABLE, ANNOTATED, TIMELINES = "predictions", "annotated", "timelines"
TABLE_FORMATS = ("jsonl", "csv")
TABLES = tuple(f"{TABLE}.{suffix}" for suffix in TABLE_FORMATS)
"""What `predict` writes into its output folder: one of the tables, and two folders."""

IMAGES = f"images ({', '.join(sorted(SUFFIXES))})"
IMAGES_OR_VIDEOS = f"{IMAGES} or videos ({', '.join(sorted(VIDEO_SUFFIXES))})"


class SourceFile(NamedTuple):
    """A file to process."""

    path: Path  # as it was given
    output_name: Path  # unique path of its results, relative to their folder

    @property
    def is_video(self) -> bool:
        """Whether it has a video's suffix or is an animated GIF; files with an unknown suffix are read as images."""
        suffix = self.path.suffix.lower()
        return is_animated_gif(self.path) if suffix == ".gif" else suffix in VIDEO_SUFFIXES


def find_files(
    names: Sequence[str],
    output: Path | None = None,
    report: Callable[[str], None] | None = None,
    expected: str = EXPECTED,
) -> list[SourceFile]:
    """Return the images and videos that the names match, each once.

    The results of `predict` below a folder or in the matches of a pattern are skipped.

    Args:
        names: Files of any suffix, folders (searched recursively) and patterns.
        output: The output folder; folders of earlier results are recognized by their table.
        report: Receives a line for each folder and pattern with other files or linked folders, which are skipped.
        expected: What a name may be, for the message about one that does not exist.

    Raises:
        UserError: A name matches no file, or a folder is or contains a run.
    """
    output = output.resolve() if output else None
    paths = [path for name in names for path in _resolve(name, output, report, sources=expected)]
    unique = list({os.path.abspath(path): path for path in paths}.items())
    root = os.path.commonpath([os.path.dirname(absolute) for absolute, _ in unique])
    return [SourceFile(path, Path(os.path.relpath(absolute, root))) for absolute, path in unique]


def find_images(name: str, report: Callable[[str], None] | None = None) -> list[Path] | None:
    """Return the images in a folder, or that match a pattern; None for any other name.

    `report` is that of `find_files`; videos are skipped.

    Raises:
        UserError: There are none.
    """
    if not Path(name).expanduser().is_dir() and (Path(name).expanduser().is_file() or not glob.has_magic(name)):
        return None
    return _resolve(name, None, report, SUFFIXES, IMAGES)


def _resolve(
    name: str,
    output: Path | None,
    report: Callable[[str], None] | None,
    suffixes: Collection[str] = SUFFIXES | VIDEO_SUFFIXES,
    expected: str = IMAGES_OR_VIDEOS,
    sources: str = EXPECTED,
) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_file():
        return [path]
    links: list[Path] = []
    if path.is_dir():
        found = [file for file in path.rglob("*") if not any(map(is_litter, file.relative_to(path).parts))]
        root, problem = path, "contains"
        links = sorted(file for file in found if file.is_symlink() and file.is_dir())
    elif glob.has_magic(name):
        found, problem = [Path(match) for match in glob.iglob(str(path), recursive=True)], "matches"
        root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
    else:
        problem = "is not a regular file" if path.exists() else "does not exist"
        raise UserError(f"{name} {problem}; expected {sources}.")
    if report and links:
        report(f"{name}: skipped linked folders ({', '.join(map(str, links))}); name them as sources, too.")
    candidates = [file for file in found if file.is_file() and not _is_result(file, root, output)]
    for file in sorted(candidates):
        if any(file.match(str(name)) for name in CHECKPOINTS):
            run = file.parent.parent
            raise UserError(f"{run} is a run, whose images are figures; to use its weights: checkpoint={run}.")
    files = sorted(file for file in candidates if file.suffix.lower() in suffixes)
    if not files:
        raise UserError(f"{name} {problem} none of the expected {expected}.")
    if report and len(files) < len(candidates):
        report(f"{name}: skipped {_describe(set(candidates) - set(files))}; expected {expected}.")
    return files


def _is_result(file: Path, root: Path, output: Path | None) -> bool:
    """Return whether `predict` wrote the file, found below `root`, to its output folder or an earlier one."""
    if file.name in TABLES:
        return True
    folders = [folder for folder in file.relative_to(root).parents if folder.name in (ANNOTATED, TIMELINES)]
    parents = [(root / folder).parent for folder in folders]
    return any(parent.resolve() == output or any((parent / table).is_file() for table in TABLES) for parent in parents)


def _describe(files: Collection[Path]) -> str:
    """Return a description such as "3 files (2 .heic, 1 .txt)"."""
    counts = Counter(file.suffix.lower() or "without suffix" for file in files)
    return f"{counted(len(files), 'file')} ({', '.join(f'{n} {suffix}' for suffix, n in sorted(counts.items()))})"
