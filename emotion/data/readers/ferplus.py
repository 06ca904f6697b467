"""FER2013's faces under FER+'s labels: Barsoum et al. 2016, https://arxiv.org/abs/1608.01041.

Ten taggers voted on each face for one of eight emotions, "unknown" or "not a face". As in the authors' code
(FERPlus/src/ferplus.py) a single vote for something counts as a slip and is dropped, and what has more than half of the
votes that remain is the label; a face without such a majority is unknown. One rule for every target, so that runs
compare: the code takes other training rows for each, and in validation and test the majority's, as here.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from emotion.data.faces import EMOTIONS, USAGES, Reading, Rows
from emotion.errors import UserError
from emotion.io.bounded import lines

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


CLASSES = (*EMOTIONS, "contempt", "unknown", "not a face")
"""FER2013's own under their names and numbers, so that every label scheme of FER2013 takes FER+ labels too."""

_NAMES = tuple(SEEN.values())
_IN_FILE = [_NAMES.index(name) for name in CLASSES]
_NAME = re.compile(r"fer\d{7}\.png$")


def read(source: Reading, votes: str, agreement: float = 0.5) -> Reading:
    """`source`, FER2013 in any form, with the votes of the file `votes` and labels by their majority.

    Faces that are called as FER+ calls them, ferNNNNNNN.png, are matched by name, which also tells a merged test set's
    parts apart; others by row number, as the votes' rows are fer2013.csv's.

    Args:
        source: the faces.
        votes: the file of FER+; see `read_votes`.
        agreement: the share of the votes that the majority has to exceed; with 0 the most votes are enough, and of
            equally many the first in the file's order (neutral, happiness, ...) wins.

    Raises:
        UserError: from the source or `read_votes`; they have other numbers of rows or other usages.
    """
    if not isinstance(agreement, int | float) or not 0 <= agreement < 1:
        raise UserError(f"data.agreement={agreement}: expected a share of the votes, from 0 to below 1.")
    path = Path(votes)
    if not path.is_file():
        raise UserError(missing(path))
    name = f"{source.name} with {path}"
    return Reading(name, CLASSES, [path], source.expected, _rows(source, path, agreement), parts=(source,))


def without_single(votes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Votes (N, 10) less those that one tagger alone gave."""
    return np.where(votes > 1, votes, 0).astype(np.uint8)


def majority(votes: NDArray[np.uint8], agreement: float) -> NDArray[np.uint8]:
    """Places in VOTED (N,) of what more than `agreement` of the votes (N, 10) are for; unknown where nothing is."""
    won = votes.max(1) > agreement * votes.sum(1)
    return np.where(won, votes.argmax(1), _NAMES.index("unknown")).astype(np.uint8)


def _rows(source: Reading, path: Path, agreement: float) -> Iterator[Rows]:
    table = read_votes(path)
    kept = without_single(table.votes)
    labels = np.argsort(_IN_FILE).astype(np.uint8)[majority(kept, agreement)]
    numbers = {name: row for row, name in enumerate(table.names) if name}
    done, named = 0, False
    for rows in source.rows:
        names = [found.group() if (found := _NAME.search(origin)) else "" for origin in rows.origin]
        named = named if done else all(names)
        places = [numbers.get(name, -1) for name in names] if named else range(done, done + len(names))
        some = np.array(places)
        _check(source.name, path, table, rows, some, named=named)
        yield Rows(rows.images, labels[some], table.usage[some], rows.origin, kept[some][:, _IN_FILE])
        done += len(names)
    if not named and done != len(table.usage):
        raise UserError(f"{source.name} has {done:,} faces and {path} has {len(table.usage):,} rows; {_ADVICE}")


def _check(source: str, path: Path, table: Votes, rows: Rows, places: NDArray[np.int64], *, named: bool) -> None:
    """Raises UserError at the first face that the row of its place cannot be of."""
    for place, usage, origin in zip(places, rows.usage, rows.origin, strict=True):
        if not 0 <= place < len(table.usage):
            raise UserError(f"{source}: {origin} has no row in {path}, of {len(table.usage):,} rows; {_ADVICE}")
        voted = table.usage[place]
        if usage != voted and not (named and USAGES[usage] == "Test" and USAGES[voted] != "Training"):
            raise UserError(
                f"{source}: {origin} is of {USAGES[usage]}, and row {place} of {path}, which would be its own, of "
                f"{USAGES[voted]}; {_ADVICE}"
            )


_ADVICE = (
    "expected FER2013 whole and in fer2013.csv's order, or images named as FER+ names them (fer0000000.png). Take "
    "data@data.source=fer2013_csv or data@data.source=icml_csv."
)
