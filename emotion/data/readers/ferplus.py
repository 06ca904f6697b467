"""FER2013's images with FER+'s labels: Barsoum et al. 2016, https://arxiv.org/abs/1608.01041.

Ten annotators ("taggers") voted on each image for one of eight emotions, "unknown" or "not a face". As in the authors'
code (FERPlus/src/ferplus.py), single votes are dropped as noise and the label is the class with more than half of the
remaining votes; without such a majority it is unknown. Unlike their code, one rule serves all kinds of targets, so
that runs are comparable.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from emotion.data.faces import EMOTIONS, TRAINING, USAGES, DataSource, FaceChunk, Faces
from emotion.errors import UserError, counted
from emotion.io.bounded import read_lines

VOTES_MD5 = "413eba86d6e454536b99705b8c7fc5c5"
"""Digest of FER+'s fer2013new.csv."""

VOTE_NAMES = {
    "neutral": "neutral", "happiness": "happy", "surprise": "surprise", "sadness": "sad", "anger": "angry",
    "disgust": "disgust", "fear": "fear", "contempt": "contempt", "unknown": "unknown", "NF": "not a face",
}  # fmt: skip
"""The vote columns of the file in order, and FER2013's names for them."""

VOTE_COLUMNS = tuple(VOTE_NAMES)
HEADER = ("Usage", "Image name", *VOTE_COLUMNS)

CLASSES = (*EMOTIONS, "contempt", "unknown", "not a face")
"""FER2013's classes with their names and indices, so that all label schemes of FER2013 fit, and three more."""

UNKNOWN = VOTE_COLUMNS.index("unknown")
COLUMN_OF_CLASS = [list(VOTE_NAMES.values()).index(name) for name in CLASSES]
CLASS_OF_COLUMN = np.argsort(COLUMN_OF_CLASS).astype(np.uint8)
CHECKED_ROWS, MIN_CHECKED_ROWS, MIN_AGREEMENT = 100, 20, 0.42
IMAGE_NAME = re.compile(r"fer\d{7}\.png$")

REQUIREMENT = (
    "expected all of FER2013 in the order of fer2013.csv, or images with FER+'s file names (fer0000000.png). Use "
    "data@data.source=fer2013_csv or data@data.source=icml_csv."
)


class VoteTable(NamedTuple):
    """The rows of fer2013new.csv; row i belongs to row i of fer2013.csv."""

    votes: NDArray[np.uint8]  # (N, 10), in the order of VOTE_COLUMNS; about ten per row
    usage: NDArray[np.uint8]  # (N,) index into USAGES
    names: list[str]  # ferNNNNNNN.png, not numbered by row; empty for rows without an image in FER+


def read(source: DataSource, votes: str, agreement: float = 0.5, training_agreement: float | None = None) -> DataSource:
    """Combine FER2013 in any format with the votes of FER+, and label it by their majority.

    Images with FER+'s file names (ferNNNNNNN.png) are matched by name, which also separates a merged test set; others
    by row number.

    Args:
        source: The images.
        votes: FER+'s file; see `read_votes`.
        agreement: Share of the votes that the majority must exceed. With 0 the most frequent vote wins; of equally
            frequent ones the first in the file's order (neutral, happiness, ...).
        training_agreement: The same for the rows of Training; None for `agreement`.

    Raises:
        UserError: An agreement is out of range or the file is missing; while reading: from the source or `read_votes`,
            or rows, usages or labels of the two do not match.
    """
    training_agreement = agreement if training_agreement is None else training_agreement
    for name, value in {"agreement": agreement, "training_agreement": training_agreement}.items():
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise UserError(f"data.{name}={value}: expected a share of the votes, at least 0 and below 1.")
    path = Path(votes)
    if not path.is_file():
        raise UserError(_missing_message(path, "data.votes"))
    chunks = _chunks(source, path, agreement, training_agreement)
    return DataSource(f"{source.name} with {path}", CLASSES, [path], source.num_faces, chunks, components=(source,))


def read_votes(path: Path, setting: str = "data.votes") -> VoteTable:
    """Read FER+'s file, whose columns are found by name in any case.

    Raises:
        UserError: The file is missing or malformed; the message names `setting`, the config key of the file.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _parse_votes(path, csv.reader(read_lines(file)))
    except FileNotFoundError:
        raise UserError(_missing_message(path, setting)) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV ({error}); expected {','.join(HEADER)}.") from error


def check_votes(path: Path, table: VoteTable, faces: Faces) -> None:
    """Raise UserError if the rows of votes are not those of the faces, because usages differ or labels disagree."""
    source, usage = faces.source, faces.usage
    advice = "FER+ matches fer2013.csv or icml_face_data.csv row by row; omit votes= for other data."
    if len(table.usage) != len(usage):
        raise UserError(
            f"votes={path} does not match: it has {counted(len(table.usage), 'row')}, but {source} has "
            f"{len(usage):,}. {advice}"
        )
    if len(differing := np.flatnonzero(table.usage != usage)):
        row = int(differing[0])
        raise UserError(
            f"votes={path} does not match: the usage of {counted(len(differing), 'row')} differs, first of row {row}: "
            f"{USAGES[table.usage[row]]}, but {USAGES[usage[row]]} in {source}. {advice}"
        )
    check_agreement(path, table.votes, np.array(faces.classes)[faces.labels], source)


def check_agreement(path: Path, votes: NDArray[np.uint8], labels: NDArray[np.str_], source: str) -> None:
    """Raise UserError if votes (N, 10) disagree with the labels (N,) of a source in a stretch of `CHECKED_ROWS` rows.

    The rows then have another order. In FER2013, 53 to 80 % of 100 votes agree, by chance at most 31 %. Fewer than
    `MIN_CHECKED_ROWS` are not checked.
    """
    voted = plurality_vote(votes)
    rows = np.flatnonzero(np.isin(voted, EMOTIONS) & np.isin(labels, EMOTIONS))
    if len(rows) < MIN_CHECKED_ROWS:
        return
    for stretch in np.array_split(rows, max(1, len(rows) // CHECKED_ROWS)):
        share = (voted[stretch] == labels[stretch]).mean()
        if share < MIN_AGREEMENT:
            raise UserError(
                f"{path} does not match {source}: from row {stretch[0]} to {stretch[-1]}, {100 * share:.0f} % of the "
                f"votes agree with the labels, expected about 65 %. The rows have another order than those of the "
                f"published fer2013.csv; {REQUIREMENT}"
            )


def plurality_vote(votes: NDArray[np.integer]) -> NDArray[np.str_]:
    """Return FER2013's name (N,) of the most frequent vote of votes (N, 10); empty if two are equally frequent."""
    second, most = np.sort(votes, 1)[:, -2:].T
    return np.where(most > second, np.array(list(VOTE_NAMES.values()))[votes.argmax(1)], "")


def drop_single_votes(votes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Set the votes (N, 10) that only one annotator gave to 0."""
    return np.where(votes > 1, votes, 0).astype(np.uint8)


def majority_labels(votes: NDArray[np.uint8], agreement: float | NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the index into VOTE_COLUMNS (N,) with more than `agreement` of the votes (N, 10), else unknown's.

    `agreement` is a share of the votes, or one for each row (N,).
    """
    won = votes.max(1) > agreement * votes.sum(1)
    return np.where(won, votes.argmax(1), UNKNOWN).astype(np.uint8)


def _chunks(source: DataSource, path: Path, agreement: float, training_agreement: float) -> Iterator[FaceChunk]:
    table = read_votes(path)
    votes = drop_single_votes(table.votes)
    required = np.where(table.usage == TRAINING, training_agreement, agreement)
    labels = CLASS_OF_COLUMN[majority_labels(votes, required)]
    row_of_name = {name: row for row, name in enumerate(table.names) if name}
    done, by_name, original = 0, False, []
    for chunk in source.read():
        names = [found.group() if (found := IMAGE_NAME.search(origin)) else "" for origin in chunk.origin]
        by_name = by_name if done else all(names)
        matches = [row_of_name.get(name, -1) for name in names] if by_name else range(done, done + len(names))
        rows = np.array(matches)
        _check_match(source.name, path, table, chunk, rows, by_name=by_name)
        yield FaceChunk(chunk.images, labels[rows], table.usage[rows], chunk.origin, votes[rows][:, COLUMN_OF_CLASS])
        done += len(names)
        original.append(np.array(source.classes)[chunk.labels])
    if by_name or not original:
        return
    if done != len(table.usage):
        raise UserError(
            f"{source.name} has {counted(done, 'face')} but {path} has {counted(len(table.usage), 'row')}; "
            f"{REQUIREMENT}"
        )
    check_agreement(path, table.votes, np.concatenate(original), source.name)


def _check_match(
    source: str, path: Path, table: VoteTable, chunk: FaceChunk, rows: NDArray[np.int64], *, by_name: bool
) -> None:
    """Raise UserError at the first face whose row of votes is missing or has another usage."""
    for row, usage, origin in zip(rows, chunk.usage, chunk.origin, strict=True):
        if not 0 <= row < len(table.usage):
            raise UserError(
                f"{source}: {origin} has no row in {path}, of {counted(len(table.usage), 'row')}; {REQUIREMENT}"
            )
        expected = table.usage[row]
        is_merged_test = by_name and USAGES[usage] == "Test" and USAGES[expected] != "Training"
        if usage != expected and not is_merged_test:
            raise UserError(
                f"{source}: {origin} has usage {USAGES[usage]}, but row {row} of {path} has usage {USAGES[expected]}; "
                f"{REQUIREMENT}"
            )


def _parse_votes(path: Path, table: Iterator[list[str]]) -> VoteTable:
    header = next(table, [])
    names = [name.strip().lower() for name in header]
    if missing := [name for name in HEADER if names.count(name.lower()) != 1]:
        raise UserError(
            f"{path} begins with {','.join(header)[:120]!r}; expected the columns {','.join(HEADER)}, each once; "
            f"found otherwise: {', '.join(missing)}."
        )
    usage_at, name_at, *votes_at = (names.index(name.lower()) for name in HEADER)
    usages = {name.lower(): index for index, name in enumerate(USAGES[:3])}
    votes, usage, images = [], [], []
    for row, cells in enumerate(cells for cells in table if any(map(str.strip, cells))):
        if len(cells) != len(header):
            _refuse(path, row, counted(len(cells), "column"), f"{len(header)} (is the file truncated?)")
        if (usage_index := usages.get(cells[usage_at].strip().lower())) is None:
            _refuse(path, row, f"usage {cells[usage_at]!r}", ", ".join(USAGES[:3]))
        counts = [cells[place].strip() for place in votes_at]
        if wrong := [count for count in counts if not _is_count(count)]:
            _refuse(path, row, f"{wrong[0]!r} among the votes", "non-negative integers")
        votes.append([int(count) for count in counts])
        usage.append(usage_index)
        images.append(cells[name_at].strip())
    if not votes:
        raise UserError(f"{path} has a header and no rows; expected one row for each of fer2013.csv.")
    return VoteTable(np.array(votes, np.uint8), np.array(usage, np.uint8), images)


def _is_count(cell: str) -> bool:
    return cell.isdecimal() and len(cell) < 20 and int(cell) <= 255  # Python refuses to parse thousands of digits


def _refuse(path: Path, row: int, found: str, expected: str) -> NoReturn:
    raise UserError(
        f"{path}, row {row} (line {row + 2}): found {found[:80]}, expected {expected}. Download the file again."
    )


def _missing_message(path: Path, setting: str) -> str:
    return (
        f"{path} does not exist. The votes of FER+ are published on GitHub (search 'FERPlus fer2013new.csv'); put the "
        f"file there, or set its location: {setting}=FILE."
    )
