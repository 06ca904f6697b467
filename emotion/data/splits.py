"""Splits: which rows train, which choose (val), which are read once at the end (test).

Each function takes usage (N,) and labels (N,) with LEFT_OUT where a row has no class, and returns sorted row numbers,
none of usage Mixed; those that draw do so from `seed` alone, so that equal seeds give equal rows whatever the run's own
seed is. From what they find, the rows that the file `drop` lists are left out: of `drop_faults` or of all, in the parts
`drop_from`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion.building import build
from emotion.data.dropped import digest, listed
from emotion.data.faces import PRIVATE_TEST, PUBLIC_TEST, TEST, TRAINING
from emotion.errors import UserError
from emotion.labels import LEFT_OUT

RowNumbers = NDArray[np.int64]


NOTHING_DROPPED: Mapping[str, Any] = {"drop": None, "drop_faults": None, "drop_from": ["train"]}
"""A split's settings as they stand in conf/split."""


class Split(NamedTuple):
    """Row numbers of a source, sorted, no row in two parts."""

    train: RowNumbers
    val: RowNumbers
    test: RowNumbers


def official(
    usage: NDArray[np.uint8],
    labels: NDArray[np.int64],
    drop: str | None = None,
    drop_faults: Sequence[str] | str | None = None,
    drop_from: Sequence[str] | str = ("train",),
) -> Split:
    """Training, PublicTest, PrivateTest: the contest's."""
    _need_two_test_sets(usage, "official")
    split = Split(*(_rows(usage, labels, part) for part in (TRAINING, PUBLIC_TEST, PRIVATE_TEST)))
    return _without(split, usage, drop, drop_faults, drop_from)


def swapped(
    usage: NDArray[np.uint8],
    labels: NDArray[np.int64],
    drop: str | None = None,
    drop_faults: Sequence[str] | str | None = None,
    drop_from: Sequence[str] | str = ("train",),
) -> Split:
    """PrivateTest chooses and PublicTest is reported, which is how some published figures came about."""
    _need_two_test_sets(usage, "swapped")
    split = Split(*(_rows(usage, labels, part) for part in (TRAINING, PRIVATE_TEST, PUBLIC_TEST)))
    return _without(split, usage, drop, drop_faults, drop_from)


def stratified(
    usage: NDArray[np.uint8],
    labels: NDArray[np.int64],
    fraction: float,
    seed: int,
    drop: str | None = None,
    drop_faults: Sequence[str] | str | None = None,
    drop_from: Sequence[str] | str = ("train",),
) -> Split:
    """floor(fraction * n) of each class of Training choose; both test sets, merged, are the test."""
    rng = np.random.default_rng(seed)
    train = _rows(usage, labels, TRAINING)
    drawn = []
    for label in np.unique(labels[train]):
        members = rng.permutation(train[labels[train] == label])
        drawn.append(members[: int(fraction * len(members))])
    val = np.sort(np.concatenate(drawn)) if drawn else train[:0]
    split = Split(np.setdiff1d(train, val), val, _merged_test(usage, labels))
    return _without(split, usage, drop, drop_faults, drop_from)


def random(
    usage: NDArray[np.uint8],
    labels: NDArray[np.int64],
    fraction: float,
    seed: int,
    drop: str | None = None,
    drop_faults: Sequence[str] | str | None = None,
    drop_from: Sequence[str] | str = ("train",),
) -> Split:
    """floor(fraction * n) of all Training rows choose, whatever their class; both test sets, merged, are the test."""
    train = _rows(usage, labels, TRAINING)
    val = np.sort(np.random.default_rng(seed).permutation(train)[: int(fraction * len(train))])
    split = Split(np.setdiff1d(train, val), val, _merged_test(usage, labels))
    return _without(split, usage, drop, drop_faults, drop_from)


def dropped(split: Mapping[str, Any], usage: NDArray[np.uint8], labels: NDArray[np.int64]) -> dict[str, Any] | None:
    """What the config `split` leaves out, for the record: its file, the file's MD5, rows by part; None without one."""
    if not split.get("drop"):
        return None
    whole, kept = (build(one, usage, labels) for one in ({**split, **NOTHING_DROPPED}, split))
    counts = {part: len(before) - len(after) for part, before, after in zip(Split._fields, whole, kept, strict=True)}
    return {"file": split["drop"], "digest": digest(split["drop"]), "rows": counts}


def _without(
    split: Split,
    usage: NDArray[np.uint8],
    drop: str | None,
    drop_faults: Sequence[str] | str | None,
    drop_from: Sequence[str] | str,
) -> Split:
    faults, parts = ([given] if isinstance(given, str) else given for given in (drop_faults, drop_from))
    if not drop:
        if faults:
            raise UserError(f"split.drop_faults={faults} chooses from split.drop, which names no file: give both.")
        return split
    if not parts or not set(parts) <= set(Split._fields):
        raise UserError(f"split.drop_from={parts}: expected one or more of {', '.join(Split._fields)}.")
    rows = listed(drop, faults, usage)
    return split._replace(**{part: np.setdiff1d(getattr(split, part), rows) for part in parts})


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
