"""Splits: which rows train, which choose (val), which are read once at the end (test).

Each function takes usage (N,) and labels (N,) with LEFT_OUT where a row has no class, and returns sorted row numbers,
none of usage Mixed; those that draw do so from `seed` alone, so that equal seeds give equal rows whatever the run's own
seed is.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion.data.faces import PRIVATE_TEST, PUBLIC_TEST, TEST, TRAINING
from emotion.errors import UserError
from emotion.labels import LEFT_OUT

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
