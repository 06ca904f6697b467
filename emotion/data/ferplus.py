"""FER2013's faces under FER+'s labels: Barsoum et al. 2016, https://arxiv.org/abs/1608.01041.

Ten taggers voted on each face for one of eight emotions, "unknown" or "not a face". As in the authors' code
(FERPlus/src/ferplus.py) a single vote for something counts as a slip and is dropped, and what has more than half of the
votes that remain is the label; a face without such a majority is unknown. One rule for every target, so that runs
compare: the code takes other training rows for each, and in validation and test the majority's, as here.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion.data.faces import EMOTIONS, USAGES, Reading, Rows
from emotion.data.ferplus_votes import SEEN, Votes, missing, read_votes
from emotion.errors import UserError

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
