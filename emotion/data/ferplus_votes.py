"""The votes file of FER+, fer2013new.csv: ten taggers' votes for each row of fer2013.csv, in its order."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from emotion.data.faces import USAGES
from emotion.errors import UserError
from emotion.limits import lines

SEEN = {
    "neutral": "neutral", "happiness": "happy", "surprise": "surprise", "sadness": "sad", "anger": "angry",
    "disgust": "disgust", "fear": "fear", "contempt": "contempt", "unknown": "unknown", "NF": "not a face",
}  # fmt: skip
"""What a tagger could vote for, in the file's order, and FER2013's names for it."""

VOTED = tuple(SEEN)

HEADER = ("Usage", "Image name", *VOTED)


class Votes(NamedTuple):
    """The file's rows, of which row i is fer2013.csv's row i."""

    votes: NDArray[np.uint8]  # (N, 10), in the order of VOTED; about ten taggers a row
    usage: NDArray[np.uint8]  # (N,) index into USAGES
    names: list[str]  # ferNNNNNNN.png, not numbered by row; empty for rows that FER+ gives no picture of


def read_votes(path: Path, setting: str = "data.votes") -> Votes:
    """The file that `setting` names, however its header's letters are.

    Raises:
        UserError: it is missing or not text, its header is another one, a row is not as announced, or there is none.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read(path, csv.reader(lines(file)))
    except FileNotFoundError:
        raise UserError(missing(path, setting)) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV ({error}); expected {','.join(HEADER)}.") from error


def check_rows(path: Path, votes: Votes, source: str, usage: NDArray[np.uint8]) -> None:
    """Refuse faces whose usages (N,) are not those of the file's rows.

    Raises:
        UserError: they are more or fewer, or stand in another order.
    """
    fitting = "FER+ goes with fer2013.csv or icml_face_data.csv, row by row; leave votes= out for other data."
    if len(votes.usage) != len(usage):
        raise UserError(
            f"votes={path} does not fit: it has {len(votes.usage):,} rows and {source} has {len(usage):,}. {fitting}"
        )
    if len(differing := np.flatnonzero(votes.usage != usage)):
        row = int(differing[0])
        raise UserError(
            f"votes={path} does not fit: row {row} is {USAGES[votes.usage[row]]} there and {USAGES[usage[row]]} in "
            f"{source}, and so with {len(differing):,} rows. {fitting}"
        )


def missing(path: Path, setting: str = "data.votes") -> str:
    """What to say where there is no such file."""
    return (
        f"{path} is not there. The votes of FER+ are published on GitHub (search 'FERPlus fer2013new.csv'): put the "
        f"file there, or say where it is: {setting}=FILE."
    )


def _read(path: Path, table: Iterator[list[str]]) -> Votes:
    header = next(table, [])
    if [name.strip().lower() for name in header] != [name.lower() for name in HEADER]:
        raise UserError(f"{path} begins with {','.join(header)[:120]!r}; expected the header {','.join(HEADER)}.")
    usages = {name: index for index, name in enumerate(USAGES[:3])}
    votes, usage, names = [], [], []
    for row, cells in enumerate(table):
        if len(cells) != len(HEADER):
            _refuse(path, row, f"{len(cells)} columns", f"{len(HEADER)} (is the file cut short?)")
        if (use := usages.get(cells[0].strip())) is None:
            _refuse(path, row, f"usage {cells[0]!r}", ", ".join(usages))
        if wrong := [cell for cell in cells[2:] if not _is_a_count(cell.strip())]:
            _refuse(path, row, f"{wrong[0]!r} among the votes", "whole numbers from 0")
        votes.append([int(cell) for cell in cells[2:]])
        usage.append(use)
        names.append(cells[1].strip())
    if not votes:
        raise UserError(f"{path} has a header and no rows; expected one row for each of fer2013.csv.")
    return Votes(np.array(votes, np.uint8), np.array(usage, np.uint8), names)


def _is_a_count(cell: str) -> bool:
    return cell.isdecimal() and len(cell) < 20 and int(cell) <= 255  # Python refuses to read thousands of digits


def _refuse(path: Path, row: int, found: str, expected: str) -> NoReturn:
    raise UserError(
        f"{path}, row {row} (line {row + 2}): found {found[:80]}, expected {expected}. Fetch the file again."
    )
