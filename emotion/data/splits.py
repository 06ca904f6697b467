"""Splits into training, validation and test rows.

A split function takes usage (N,) and labels (N,), `NO_CLASS` for rows without a class, and returns sorted row numbers.
No split contains rows of usage Mixed. Functions that sample use only their own `seed`, so that runs with different
seeds share one split.
"""

import csv
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion.config.compose import is_int_at_least
from emotion.config.instantiate import instantiate
from emotion.data.faces import PRIVATE_TEST, PUBLIC_TEST, TEST, TRAINING, USAGES, Faces
from emotion.data.issues import ISSUES
from emotion.data.labels import NO_CLASS
from emotion.errors import UserError
from emotion.io.bounded import read_lines

RowNumbers = NDArray[np.int64]

NO_EXCLUSIONS: Mapping[str, Any] = {
    "exclude": None, "exclude_issues": None, "exclude_from": ["train"], "max_per_class": None,
}  # fmt: skip
"""Defaults of the settings of any split that leave rows out; debug=fdr sets `max_per_class`."""


class Split(NamedTuple):
    """Row numbers of a source, sorted; no row is in two parts."""

    train: RowNumbers
    val: RowNumbers
    test: RowNumbers


def official(usage: NDArray[np.uint8], labels: NDArray[np.int64]) -> Split:
    """Train on Training, validate on PublicTest, test on PrivateTest or on the only test set."""
    return Split(*(_rows(usage, labels, *parts) for parts in ((TRAINING,), (PUBLIC_TEST,), (PRIVATE_TEST, TEST))))


def swapped_test(usage: NDArray[np.uint8], labels: NDArray[np.int64]) -> Split:
    """Validate on PrivateTest and test on PublicTest, as some published results do."""
    return Split(*(_rows(usage, labels, part) for part in (TRAINING, PRIVATE_TEST, PUBLIC_TEST)))


def stratified(usage: NDArray[np.uint8], labels: NDArray[np.int64], fraction: float, seed: int) -> Split:
    """Validate on floor(fraction * n) rows of each class of Training; test on both test sets."""
    rng = np.random.default_rng(seed)
    train = _rows(usage, labels, TRAINING)
    sampled = [train[:0]]
    for label in np.unique(labels[train]):
        members = rng.permutation(train[labels[train] == label])
        sampled.append(members[: math.floor(round(fraction * len(members), 6))])  # 0.29 * 100 is 28.999999999999996
    val = np.sort(np.concatenate(sampled))
    return Split(np.setdiff1d(train, val), val, _rows(usage, labels, PUBLIC_TEST, PRIVATE_TEST, TEST))


def random(usage: NDArray[np.uint8], labels: NDArray[np.int64], fraction: float, seed: int) -> Split:
    """Validate on floor(fraction * n) rows of Training regardless of class; test on both test sets."""
    return stratified(usage, np.minimum(labels, 0), fraction, seed)  # as if all rows had one class


def kfold(usage: NDArray[np.uint8], labels: NDArray[np.int64], folds: int, fold: int, seed: int) -> Split:
    """Divide the rows of all usages into `folds` parts with the same share of each class.

    Test on part `fold`, validate on the next one and train on the others, so that every row is tested in one fold.

    Raises:
        UserError: `folds` is less than 3, or `fold` is not one of 0 to `folds` - 1.
    """
    if not is_int_at_least(folds, 3) or not is_int_at_least(fold, 0) or fold >= folds:
        raise UserError(
            f"split.folds={folds} split.fold={fold}: expected 3 or more folds, and a fold below their number."
        )
    rng = np.random.default_rng(seed)
    rows = _rows(usage, labels, TRAINING, PUBLIC_TEST, PRIVATE_TEST, TEST)
    part = np.empty(len(rows), np.int64)
    for label in np.unique(labels[rows]):
        members = rng.permutation(np.flatnonzero(labels[rows] == label))
        part[members] = (np.arange(len(members)) + label) % folds  # an offset, or the first parts become the largest
    test, val = part == fold, part == (fold + 1) % folds
    return Split(rows[~test & ~val], rows[val], rows[test])


def check_split(config: Mapping[str, Any]) -> None:
    """Raise UserError if exclusions are inconsistent or unreadable, or a split of this module refuses its settings."""
    file, *_, settings = _parse(config)
    if file:
        _read_entries(file)
    if settings["_target_"].startswith(f"{__name__}."):
        instantiate(settings, np.zeros(0, np.uint8), np.zeros(0, np.int64))


def _parse(config: Mapping[str, Any]) -> tuple[str | None, list[str] | None, list[str], int | None, dict[str, Any]]:
    """Return the values of `NO_EXCLUSIONS` in a split's config, and the function with its arguments."""
    settings = {**NO_EXCLUSIONS, **config}
    file, *lists, limit = (settings.pop(key) for key in NO_EXCLUSIONS)
    issues, parts = ([value] if isinstance(value, str) else value for value in lists)
    if issues and not file:
        raise UserError(f"split.exclude_issues={issues} is set, but split.exclude names no file; set both.")
    if file and (not parts or not set(parts) <= set(Split._fields)):
        raise UserError(f"split.exclude_from={parts}: expected one or more of {', '.join(Split._fields)}.")
    return file, issues, parts, limit, settings


def split_with_exclusions(
    config: Mapping[str, Any], faces: Faces, labels: NDArray[np.int64]
) -> tuple[Split, dict[str, Any] | None]:
    """Split the rows and leave out those listed in a file.

    Args:
        config: The split function and its arguments, and the settings of `NO_EXCLUSIONS`: the CSV file `exclude`, the
            issues `exclude_issues` to select from it (None for all), the parts `exclude_from` to remove its rows from;
            and the number of rows of each class in each part, `max_per_class` (None for all).
        faces: The source.
        labels: (N,), `NO_CLASS` for rows without a class.

    Returns:
        The split, and for the run record the file, its MD5 and the number of rows removed per part (None without a
        file).

    Raises:
        UserError: From the split function or `read_exclusions`, or the settings are inconsistent.
    """
    file, issues, parts, limit, settings = _parse(config)
    complete: Split = instantiate(settings, faces.usage, labels)
    if limit is not None:
        complete = Split(*(_first_of_each_class(rows, labels, limit) for rows in complete))
    if not file:
        return complete, None
    rows = read_exclusions(file, issues, faces)
    split = complete._replace(**{part: np.setdiff1d(getattr(complete, part), rows) for part in parts})
    removed = {part: len(old) - len(new) for part, old, new in zip(Split._fields, complete, split, strict=True)}
    return split, {"file": file, "digest": hashlib.md5(Path(file).read_bytes()).hexdigest(), "rows": removed}


def read_exclusions(file: str, issues: Sequence[str] | None, faces: Faces) -> RowNumbers:
    """Return the sorted, unique row numbers that a CSV file lists under one of `issues` (None: all).

    Raises:
        UserError: The file is missing or malformed, does not contain an issue, or belongs to other data: a row does not
            exist, or its usage or label is not that of the file.
    """
    entries, rows = _read_entries(file)
    _check_rows(file, rows.tolist(), entries, faces)
    if issues is None:
        return np.unique(rows)
    columns = list(entries[0]) if entries else ["issue"]
    if "issue" not in columns:
        raise UserError(f"split.exclude_issues={issues}: {file} has no column issue; found {', '.join(columns)}.")
    known = {str(entry["issue"]) for entry in entries}
    if unknown := sorted(set(issues) - known - set(ISSUES)):
        raise UserError(
            f"split.exclude_issues: {file} lists no {', '.join(unknown)}; expected some of {', '.join(sorted(known))}."
        )
    return np.unique(rows[[entry["issue"] in issues for entry in entries]])


def _read_entries(file: str) -> tuple[list[dict[str, str]], RowNumbers]:
    """Return the lines of a file of exclusions by column, and their row numbers; UserError as in `read_exclusions`."""
    try:
        with open(file, newline="", encoding="utf-8-sig") as opened:
            entries = list(csv.DictReader(line for line in read_lines(opened) if line.strip(", \t\r\n")))
        if any(None in (*entry, *entry.values()) for entry in entries):
            raise ValueError("a line has more or fewer cells than the header")
        return entries, np.array([int(entry["row"]) for entry in entries], np.int64)
    except OSError as error:
        raise UserError(
            f"split.exclude={file} cannot be read: {error.strerror or error}. Expected the rows.csv of "
            f"python -m emotion.audit; to resume a run, restore the file it started with."
        ) from error
    except (KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
        raise UserError(
            f"split.exclude={file} is not a list of rows ({type(error).__name__}: {error}); expected a CSV file with a "
            f"column row of row numbers from 0 and, to select issues, a column issue."
        ) from error


def _first_of_each_class(rows: RowNumbers, labels: NDArray[np.int64], limit: int) -> RowNumbers:
    first = [rows[labels[rows] == label][:limit] for label in np.unique(labels[rows])]
    return np.sort(np.concatenate([rows[:0], *first]))


def _rows(usage: NDArray[np.uint8], labels: NDArray[np.int64], *usages: int) -> RowNumbers:
    return np.flatnonzero(np.isin(usage, usages) & (labels != NO_CLASS))


def _check_rows(file: str, rows: Sequence[int], entries: Sequence[Mapping[str, str]], faces: Faces) -> None:
    advice = "The file belongs to other data, or to its rows in another order; audit this data and pass its rows.csv."
    for row, entry in zip(rows, entries, strict=True):
        if not 0 <= row < len(faces):
            raise UserError(
                f"split.exclude={file} lists row {row}, but {faces.source} has rows 0 to {len(faces) - 1:,}. {advice}"
            )
        own = {"usage": USAGES[faces.usage[row]]}
        if not faces.components:  # else a second source, such as FER+, relabels the data
            own["label"] = faces.classes[faces.labels[row]]
        for column, value in own.items():
            if entry.get(column, value) != value:
                raise UserError(
                    f"split.exclude={file} lists row {row} as {entry[column]}, but in {faces.source} it is {value}. "
                    f"{advice}"
                )
