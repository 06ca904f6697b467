import numpy as np
import pytest
from numpy.typing import NDArray

from emotion.data.faces import PRIVATE_TEST, PUBLIC_TEST, TEST, TRAINING
from emotion.data.splits import Split, official, random, stratified, swapped
from emotion.errors import UserError
from emotion.labels import LEFT_OUT

rng = np.random.default_rng(0)
USAGE = rng.choice(3, 2000, p=[0.8, 0.1, 0.1]).astype(np.uint8)
LABELS = rng.choice([LEFT_OUT, 0, 1, 2], 2000, p=[0.1, 0.6, 0.25, 0.05])


def of(*usages: int) -> NDArray[np.int64]:
    return np.flatnonzero(np.isin(USAGE, usages) & (LABELS != LEFT_OUT))


def test_official_is_training_public_private() -> None:
    for part, usage in zip(official(USAGE, LABELS), (TRAINING, PUBLIC_TEST, PRIVATE_TEST), strict=True):
        np.testing.assert_array_equal(part, of(usage))


def test_swapped_exchanges_the_two_test_sets() -> None:
    one, other = official(USAGE, LABELS), swapped(USAGE, LABELS)
    np.testing.assert_array_equal(one.val, other.test)
    np.testing.assert_array_equal(one.test, other.val)


def test_stratified_takes_the_floor_of_each_class() -> None:
    split = stratified(USAGE, LABELS, 0.15, seed=0)
    counts = np.bincount(LABELS[of(TRAINING)])
    assert np.bincount(LABELS[split.val]).tolist() == [int(0.15 * n) for n in counts]


def test_random_takes_the_floor_of_all() -> None:
    split = random(USAGE, LABELS, 0.2, seed=0)
    assert len(split.val) == int(0.2 * len(of(TRAINING)))


@pytest.mark.parametrize("split", [stratified, random])
def test_drawn_splits_part_training_and_merge_the_tests(split: object) -> None:
    parts: Split = split(USAGE, LABELS, 0.2, seed=0)  # type: ignore[operator]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts[:2])), of(TRAINING))
    np.testing.assert_array_equal(parts.test, of(PUBLIC_TEST, PRIVATE_TEST))


@pytest.mark.parametrize("split", [stratified, random])
def test_drawn_rows_depend_on_the_seed_alone(split: object) -> None:
    one, same, other = (split(USAGE, LABELS, 0.2, seed=s).val for s in (1, 1, 2))  # type: ignore[operator]
    np.testing.assert_array_equal(one, same)
    assert set(one) != set(other)


@pytest.mark.parametrize("split", [official, swapped])
def test_one_merged_test_set_needs_a_drawn_split(split: object) -> None:
    with pytest.raises(UserError, match=r"needs PublicTest and PrivateTest.*split=stratified_15"):
        split(np.full(2000, TEST, np.uint8), LABELS)  # type: ignore[operator]
