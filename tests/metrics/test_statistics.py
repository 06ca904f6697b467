from statistics import NormalDist

import numpy as np
import pytest
import torch

from emotion.metrics.classification import class_scores, confusion_matrix
from emotion.metrics.statistics import (
    bootstrap_scores,
    compare_predictions,
    holm,
    holm_corrected,
    mcnemar,
    normal_interval,
    paired_bootstrap,
    percentile_interval,
    sample_mean,
    welch,
    wilson_interval,
)


def predictions(rng: np.random.Generator, labels: np.ndarray, accuracy: float) -> np.ndarray:
    """Predictions of three classes that are correct with this probability."""
    return (labels + (rng.random(len(labels)) > accuracy)) % 3


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 6, 0.03125), (1, 9, 0.021484375), (10, 25, 0.016673)],  # binomial tables, p = 1/2
)
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == mcnemar(only_second, only_first) == pytest.approx(p, abs=1e-6)


def test_mcnemar_of_many_faces_approximates_the_chi_squared_test() -> None:
    assert mcnemar(1000, 1100) == pytest.approx(0.0308, abs=5e-4)  # (|1000 - 1100| - 1)^2 / 2100 = 4.667


@pytest.mark.parametrize(
    ("share", "n", "interval"),
    [
        (0.9, 100, (0.8256, 0.9448)),  # Wilson 1927, z = 1.96
        (0.0, 10, (0.0, 0.2775)),
        (1.0, 10, (0.7225, 1.0)),
        (0.5, 2, (0.0945, 0.9055)),
        (0.0, 0, (0.0, 1.0)),
    ],
)
def test_wilson_interval_matches_published_values(share: float, n: int, interval: tuple[float, float]) -> None:
    assert wilson_interval(share, n) == pytest.approx([share, *interval], abs=1e-4)


def test_wilson_interval_takes_float32_shares_of_large_counts() -> None:
    for correct in (0, 1, 4811, 7177, 7178):
        p, n, z = correct / 7178, 7178, 1.959964
        center, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
        expected = [p, *(bound / (1 + z * z / n) for bound in (center - half, center + half))]
        found = wilson_interval(torch.tensor(p, dtype=torch.float32), torch.tensor(n))
        assert found == pytest.approx(expected, abs=1e-7)


def test_difference_is_second_minus_first() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    first, second = labels.copy(), labels.copy()
    first[:3], second[9] = 1, 0
    result = compare_predictions(labels, first, second, 3)
    assert (result.faces, result.only_first, result.only_second) == (10, 1, 3)
    assert result.accuracy.value == pytest.approx(0.2)
    assert result.accuracy.p == mcnemar(1, 3)
    f1 = [
        class_scores(confusion_matrix(torch.from_numpy(labels), torch.from_numpy(p), 3)).macro_f1.item()
        for p in (first, second)
    ]
    assert result.macro_f1.value == pytest.approx(f1[1] - f1[0])


def test_equal_predictions_are_no_difference(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 3, 200)
    predicted = predictions(rng, labels, 0.7)
    result = compare_predictions(labels, predicted, predicted, 3)
    assert result.accuracy == result.macro_f1 == (0, 0, 0, 1)


def test_paired_interval_is_narrower_than_two_separate_ones(rng: np.random.Generator) -> None:
    """For networks that mostly agree."""
    labels = rng.integers(0, 3, 4000)
    first = predictions(rng, labels, 0.6)
    second = np.where(rng.random(4000) < 0.03, labels, first)
    accuracy, _ = paired_bootstrap(labels, first, second, 3)
    assert accuracy.p < 0.001
    assert accuracy.upper - accuracy.lower < 0.01  # two Wilson intervals of 0.6 of 4,000 faces are 0.03 wide each


def test_paired_bootstrap_keeps_its_significance_level(rng: np.random.Generator) -> None:
    significant = 0
    for seed in range(100):
        labels = rng.integers(0, 3, 300)
        _, macro_f1 = paired_bootstrap(labels, predictions(rng, labels, 0.6), predictions(rng, labels, 0.6), 3, seed)
        significant += macro_f1.p < 0.05
    assert significant <= 12


@pytest.mark.parametrize("changed", [20, 100])
def test_paired_bootstrap_approximates_the_normal_interval(changed: int) -> None:
    """Of 1,000 faces, `changed` become correct and 10 wrong: the variance of a face's change is known."""
    labels = np.arange(1000) % 2
    first, second = labels.copy(), labels.copy()
    first[:changed], second[-10:] = 1 - labels[:changed], 1 - labels[-10:]
    mean = (changed - 10) / 1000
    error = (((changed + 10) / 1000 - mean**2) / 1000) ** 0.5
    accuracy, _ = paired_bootstrap(labels, first, second, 2)
    assert accuracy.value == pytest.approx(mean)
    assert (accuracy.lower, accuracy.upper) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=8e-4)
    p = 2 * NormalDist().cdf(-mean / error)
    assert accuracy.p == pytest.approx(p + 2 / 10_001, rel=0.3)  # 0.067, and the least: no resample reaches 0


def test_percentile_interval_holds_95_percent() -> None:
    assert percentile_interval(torch.tensor(7.0), torch.arange(1001.0), 9) == [7, 25, 975]
    assert percentile_interval(torch.tensor(0.0), torch.zeros(9), 0) == [0, 0, 1]


def test_normal_interval_by_hand() -> None:
    """Standard deviation 10 / 3 ** 0.5 of four values, 1.96 standard errors."""
    half_width = 1.959964 * (100 / 3) ** 0.5 / 2
    found = normal_interval(torch.tensor([1.0, 11.0, 1.0, 11.0]))
    assert found == pytest.approx([6, 6 - half_width, 6 + half_width])
    assert normal_interval(torch.tensor([0.0, 10.0, 0.0, 10.0])) == pytest.approx([5, 0, 5 + half_width])
    assert normal_interval(torch.tensor([3.0])) == [3, None, None]
    assert normal_interval(torch.zeros(0)) == [None, None, None]
    assert None not in normal_interval(torch.tensor([3.0, 4.0]))


def test_resampled_accuracy_has_the_binomial_standard_deviation() -> None:
    scores = bootstrap_scores(torch.tensor([[30, 10], [10, 50]]))
    assert scores.accuracy.shape == (2000,)
    assert scores.accuracy.mean().item() == pytest.approx(0.8, abs=0.003)
    assert scores.accuracy.std().item() == pytest.approx(0.04, rel=0.05)
    assert bootstrap_scores(torch.zeros(2, 2, dtype=torch.long)).f1.tolist() == [[0, 0]] * 2000


def test_p_values_of_both_scores_are_corrected_together() -> None:
    labels = np.arange(40) % 3
    tests = [compare_predictions(labels, labels, np.where(np.arange(40) < n, 1, labels), 3) for n in (12, 30)]
    corrected = holm_corrected(tests)
    p = [[p for test in several for p in (test.accuracy.p, test.macro_f1.p)] for several in (tests, corrected)]
    assert p[1] == holm(p[0]) != p[0]
    assert [test.accuracy[:3] for test in corrected] == [test.accuracy[:3] for test in tests]


def test_holm_matches_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2]
    assert holm([0.6, 0.5]) == [1, 1]
    assert holm([]) == []


def test_a_sample_mean_has_students_interval() -> None:
    """Quantiles of the tables at 0.975: 12.706 for one degree of freedom, 4.303 for two."""
    result = sample_mean([0.4, 0.5, 0.6])
    assert (result.n, result.mean, result.std) == (3, pytest.approx(0.5), pytest.approx(0.1))
    assert result.half_width == pytest.approx(4.303 * 0.1 / 3**0.5, abs=1e-4)
    assert sample_mean([0.6, 0.62]).half_width == pytest.approx(12.706 * 0.01, abs=1e-5)


def test_interval_of_a_mean_is_clipped_to_shares() -> None:
    assert sample_mean([0.9, 1.0]).interval() == (pytest.approx(0.95), pytest.approx(0.95 - 0.635, abs=1e-3), 1.0)
    assert sample_mean([0.0, 0.1]).interval()[1] == 0.0
    assert sample_mean([0.3] * 3).interval() == (pytest.approx(0.3), None, None)


@pytest.mark.parametrize(
    ("first", "second", "difference", "interval", "p"),
    [
        ([0.53, 0.54, 0.55], [0.58, 0.56, 0.57], 0.03, (0.007330, 0.052670), 0.021312),
        ([0.60, 0.64], [0.61, 0.615, 0.62, 0.612], -0.00575, (-0.247782, 0.236282), 0.821920),
        ([0.5, 0.5, 0.5], [0.51, 0.55], 0.03, (-0.224124, 0.284124), 0.374334),  # one side never varies
        ([0.1, 0.3], [0.7, 0.9], 0.6, (-0.008487, 1), 0.051317),  # 4.302653 * 0.02 ** 0.5 from 0.6
    ],
)
def test_welch_of_few_seeds(
    first: list[float], second: list[float], difference: float, interval: tuple[float, float], p: float
) -> None:
    """Known values of Welch's formulas with Student's distribution."""
    assert welch(first, second) == pytest.approx((difference, *interval, p), abs=2e-6)


def test_welch_matches_the_textbook() -> None:
    """Two samples of fifteen, t = -2.46 with 25 degrees of freedom: p = 0.021."""
    first = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4]
    second = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5, 24.4]
    assert welch(first, second).p == pytest.approx(0.021, abs=5e-4)


def test_welch_of_seeds_that_never_vary_is_undecided() -> None:
    """Rounding of their mean would otherwise look like a tiny variance, and any difference significant."""
    assert welch([0.1] * 3, [0.2] * 3) == (pytest.approx(0.1), -1, 1, 1)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_welch_keeps_its_significance_level(seeds: int, rng: np.random.Generator) -> None:
    draws = rng.normal(0.6, 0.01, (1000, 2, seeds))
    significant = sum(welch(list(first), list(second)).p < 0.05 for first, second in draws)
    assert significant <= 65  # 50 expected; Welch's test is conservative for few seeds
