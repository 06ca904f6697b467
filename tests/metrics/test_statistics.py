from contextlib import nullcontext

import numpy as np
import pytest
from scipy.stats import ttest_ind

from emotion.metrics.classification import class_scores, confusion_matrix
from emotion.metrics.statistics import compare, holm, mcnemar, mean_of, paired_bootstrap, welch

rng = np.random.default_rng(0)


def predictions(labels: np.ndarray, right: float) -> np.ndarray:
    """Right with this probability, else one class on."""
    return (labels + (rng.random(len(labels)) > right)) % 3


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 6, 0.03125), (1, 9, 0.021484375), (10, 25, 0.016673)],  # binomial tables, p = 1/2
)
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == mcnemar(only_second, only_first) == pytest.approx(p, abs=1e-6)


def test_mcnemar_of_many_faces_is_near_the_chi_squared_one() -> None:
    assert mcnemar(1000, 1100) == pytest.approx(0.0308, abs=5e-4)  # (|1000 - 1100| - 1)^2 / 2100 = 4.667


def test_difference_is_the_second_less_the_first() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    first, second = labels.copy(), labels.copy()
    first[:3], second[9] = 1, 0
    found = compare(labels, first, second, 3)
    assert (found.faces, found.only_first, found.only_second) == (10, 1, 3)
    assert found.accuracy.figure == pytest.approx(0.2)
    import torch

    f1 = [
        class_scores(confusion_matrix(torch.from_numpy(labels), torch.from_numpy(p), 3)).macro_f1.item()
        for p in (first, second)
    ]
    assert found.macro_f1.figure == pytest.approx(f1[1] - f1[0])


def test_equal_predictions_are_no_difference() -> None:
    labels = rng.integers(0, 3, 200)
    found = compare(labels, predicted := predictions(labels, 0.7), predicted, 3)
    assert found.accuracy == (0, 0, 0, 1)
    assert found.macro_f1 == (0, 0, 0, 1)


def test_paired_interval_is_narrower_than_two_apart() -> None:
    """Networks that mostly agree: what they share says nothing about their difference."""
    labels = rng.integers(0, 3, 4000)
    first = predictions(labels, 0.6)
    second = np.where(rng.random(4000) < 0.03, labels, first)
    accuracy, _ = paired_bootstrap(labels, first, second, 3)
    assert accuracy.p < 0.001
    assert accuracy.upper - accuracy.lower < 0.01  # two Wilson intervals of 0.6 in 4,000 faces are 0.03 wide each


def test_chance_is_found_as_often_as_it_says() -> None:
    found = 0
    for seed in range(100):
        labels = rng.integers(0, 3, 300)
        pair = paired_bootstrap(labels, predictions(labels, 0.6), predictions(labels, 0.6), 3, seed)
        found += pair[1].p < 0.05
    assert found <= 12


def test_holm_is_the_textbooks() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_mean_of_seeds_has_students_interval() -> None:
    """Quantiles of the tables at 0.975: 12.706 of one degree of freedom, 4.303 of two."""
    found = mean_of([0.4, 0.5, 0.6])
    assert (found.n, found.figure, found.deviation) == (3, pytest.approx(0.5), pytest.approx(0.1))
    assert found.half == pytest.approx(4.303 * 0.1 / 3**0.5, abs=1e-4)
    assert mean_of([0.6, 0.62]).half == pytest.approx(12.706 * 0.01, abs=1e-5)  # the deviation over root two is 0.01


def test_interval_of_a_mean_ends_where_a_share_must() -> None:
    assert mean_of([0.9, 1.0]).interval == (pytest.approx(0.95), pytest.approx(0.95 - 0.635, abs=1e-3), 1.0)
    assert mean_of([0.0, 0.1]).interval[1] == 0.0
    assert mean_of([0.3] * 3).interval == pytest.approx((0.3, 0.3, 0.3))


SEEDS = {
    "three against three": ([0.53, 0.54, 0.55], [0.58, 0.56, 0.57]),
    "two against four": ([0.60, 0.64], [0.61, 0.615, 0.62, 0.612]),
    "one that never deviates": ([0.5, 0.5, 0.5], [0.51, 0.55]),
}


@pytest.mark.parametrize("case", SEEDS)
def test_welch_is_scipys(case: str) -> None:
    first, second = SEEDS[case]
    found = welch(first, second)
    with pytest.warns(RuntimeWarning) if len(set(first)) == 1 else nullcontext():  # scipy's, of numbers so alike
        expected = ttest_ind(second, first, equal_var=False)
        lower, upper = expected.confidence_interval(0.95)
    assert found == pytest.approx((np.mean(second) - np.mean(first), lower, upper, expected.pvalue))


def test_welch_is_the_textbooks() -> None:
    """Two samples of fifteen, t = -2.46 with 25 degrees of freedom: p = 0.021."""
    first = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4]
    second = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5, 24.4]
    assert welch(first, second).p == pytest.approx(0.021, abs=5e-4)


def test_seeds_that_never_deviate_tell_nothing() -> None:
    """Their mean is rounded: without care its distance to them would be all the chance there is, and p nothing."""
    assert welch([0.1] * 3, [0.2] * 3) == (pytest.approx(0.1), -1, 1, 1)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_seeds_of_one_recipe_differ_as_seldom_as_welch_says(seeds: int) -> None:
    draws = rng.normal(0.6, 0.01, (1000, 2, seeds))
    found = sum(welch(list(first), list(second)).p < 0.05 for first, second in draws)
    assert found <= 65  # 50 expected; Welch's is careful with few
