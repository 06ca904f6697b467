"""Splits: which rows train, which choose (val), which are read once at the end (test).

Each function takes usage (N,) and labels (N,) with LEFT_OUT where a row has no class, and returns sorted row numbers,
none of usage Mixed; those that draw do so from `seed` alone, so that equal seeds give equal rows whatever the run's own
seed is.
"""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion.config.instantiate import build
from emotion.data.faces import PRIVATE_TEST, PUBLIC_TEST, TEST, TRAINING, USAGES
from emotion.data.issues import FAULTS
from emotion.data.labels import LEFT_OUT
from emotion.errors import UserError
from emotion.io.bounded import lines

RowNumbers = NDArray[np.int64]


class Split(NamedTuple):
    """Row numbers of a source, sorted, no row in two parts."""

    train: RowNumbers
    val: RowNumbers
    test: RowNumbers


def official(usage: NDArray[np.uint8], labels: NDArray[np.int64]) -> Split:
    """Training, PublicTest, PrivateTest: the contest's."""
    _need_two_test_sets(usage, "official")
    return Split(*(_rows(usage, labels, part) for part in (TRAINING, PUBLIC_TEST, PRIVATE_TEST)))


def swapped(usage: NDArray[np.uint8], labels: NDArray[np.int64]) -> Split:
    """PrivateTest chooses and PublicTest is reported, which is how some published figures came about."""
    _need_two_test_sets(usage, "swapped")
    return Split(*(_rows(usage, labels, part) for part in (TRAINING, PRIVATE_TEST, PUBLIC_TEST)))


def stratified(usage: NDArray[np.uint8], labels: NDArray[np.int64], fraction: float, seed: int) -> Split:
    """floor(fraction * n) of each class of Training choose; both test sets, merged, are the test."""
    rng = np.random.default_rng(seed)
    train = _rows(usage, labels, TRAINING)
    drawn = []
    for label in np.unique(labels[train]):
        members = rng.permutation(train[labels[train] == label])
        drawn.append(members[: int(fraction * len(members))])
    val = np.sort(np.concatenate(drawn)) if drawn else train[:0]
    return Split(np.setdiff1d(train, val), val, _merged_test(usage, labels))


def random(usage: NDArray[np.uint8], labels: NDArray[np.int64], fraction: float, seed: int) -> Split:
    """floor(fraction * n) of all Training rows choose, whatever their class; both test sets, merged, are the test."""
    train = _rows(usage, labels, TRAINING)
    val = np.sort(np.random.default_rng(seed).permutation(train)[: int(fraction * len(train))])
    return Split(np.setdiff1d(train, val), val, _merged_test(usage, labels))


def _rows(usage: NDArray[np.uint8], labels: NDArray[np.int64], part: int) -> RowNumbers:
    return np.flatnonzero((usage == part) & (labels != LEFT_OUT))


def _merged_test(usage: NDArray[np.uint8], labels: NDArray[np.int64]) -> RowNumbers:
    return np.flatnonzero(np.isin(usage, (PUBLIC_TEST, PRIVATE_TEST, TEST)) & (labels != LEFT_OUT))


def _need_two_test_sets(usage: NDArray[np.uint8], split: str) -> None:
    if (usage == TEST).any():
        raise UserError(
            f"split={split} needs PublicTest and PrivateTest, and this data has one test set that does not tell them "
            f"apart. Choose split=stratified_15 or split=random_20, which draw the validation rows from Training."
        )


NOTHING_DROPPED: Mapping[str, Any] = {"drop": None, "drop_faults": None, "drop_from": ["train"]}
"""A split's settings of what it leaves out, as they stand in conf/split."""


def parted(
    split: Mapping[str, Any], usage: NDArray[np.uint8], labels: NDArray[np.int64]
) -> tuple[Split, dict[str, Any] | None]:
    """The rows of the config `split` less those that its file `drop` lists, and for the record what was left out.

    Of `drop_faults` or of all faults, in the parts `drop_from`; nothing, and None, where no file is named.

    Raises:
        UserError: from the split's function or from `listed`; or parts that there are not.
    """
    settings = {**NOTHING_DROPPED, **split}
    drop, *given = (settings.pop(key) for key in NOTHING_DROPPED)
    faults, parts = ([one] if isinstance(one, str) else one for one in given)
    whole: Split = build(settings, usage, labels)
    if not drop:
        if faults:
            raise UserError(f"split.drop_faults={faults} chooses from split.drop, which names no file: give both.")
        return whole, None
    if not parts or not set(parts) <= set(Split._fields):
        raise UserError(f"split.drop_from={parts}: expected one or more of {', '.join(Split._fields)}.")
    rows = listed(drop, faults, usage)
    kept = whole._replace(**{part: np.setdiff1d(getattr(whole, part), rows) for part in parts})
    counts = {part: len(before) - len(after) for part, before, after in zip(Split._fields, whole, kept, strict=True)}
    return kept, {"file": drop, "digest": digest(drop), "rows": counts}


def digest(file: str) -> str:
    """MD5 of its bytes."""
    return hashlib.md5(Path(file).read_bytes()).hexdigest()


def listed(file: str, faults: Sequence[str] | None, usage: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Numbers of the rows that `file` lists under one of `faults`, or at all, sorted, each once.

    Raises:
        UserError: the file is missing or no list of rows, knows no such fault, or is of other data: a row is not there,
            or has another usage than where the file has a column `usage`.
    """
    try:
        with open(file, newline="", encoding="utf-8") as opened:
            table = csv.DictReader(lines(opened))
            columns, entries = table.fieldnames or [], list(table)
        if any(None in (*entry, *entry.values()) for entry in entries):
            raise ValueError("a line has more or fewer cells than the header")
        rows = np.array([int(entry["row"]) for entry in entries], np.int64)
    except OSError as error:
        raise UserError(
            f"split.drop={file} cannot be read: {error.strerror or error}. Give rows.csv of python -m emotion.audit, "
            f"or bring back the file that the run began with."
        ) from error
    except (KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
        raise UserError(
            f"split.drop={file} is no list of rows ({type(error).__name__}: {error}); expected a CSV file with a "
            f"column row of row numbers from 0, and where faults are chosen a column fault."
        ) from error
    _check_rows(file, rows, [entry.get("usage") for entry in entries], usage)
    if faults is None:
        return np.unique(rows)
    if "fault" not in columns:
        raise UserError(f"split.drop_faults={faults}: {file} has no column fault, but {', '.join(columns)}.")
    known = {str(entry["fault"]) for entry in entries}
    if unknown := sorted(set(faults) - known - set(FAULTS)):
        raise UserError(
            f"split.drop_faults: {file} knows no {', '.join(unknown)}; expected some of {', '.join(sorted(known))}."
        )
    return np.unique(rows[[entry["fault"] in faults for entry in entries]])


def _check_rows(file: str, rows: NDArray[np.int64], named: Sequence[str | None], usage: NDArray[np.uint8]) -> None:
    if len(absent := rows[(rows < 0) | (rows >= len(usage))]):
        raise UserError(
            f"split.drop={file} names row {absent[0]}, and the data has {len(usage):,} rows, from 0: it is of other "
            f"data. Audit this data and give its rows.csv."
        )
    for row, name in zip(rows.tolist(), named, strict=True):
        if name is not None and name != USAGES[usage[row]]:
            raise UserError(
                f"split.drop={file} has row {row} as {name}, and in the data it is {USAGES[usage[row]]}: it is of "
                f"other data. Audit this data and give its rows.csv."
            )
