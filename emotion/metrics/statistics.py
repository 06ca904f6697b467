"""Confidence intervals, and tests between two classifiers (paired faces) or two recipes (several seeds each).

Every interval is a 95 % interval. SciPy's tests are imported where they are used: `scipy.stats` is slow to import.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit
from torch import Tensor

from emotion.metrics.classification import ClassScores, class_scores

ALPHA = 0.05
"""A p-value below this is reported as a difference."""

PAIRED_RESAMPLES, SCORE_RESAMPLES = 10_000, 2_000

Labels = NDArray[np.integer]
Shares = NDArray[np.float64]


class Difference(NamedTuple):
    """Second minus first, as a share, with its interval and a two-sided p-value."""

    value: float
    lower: float
    upper: float
    p: float


class PairedComparison(NamedTuple):
    """Two classifiers on the same faces."""

    faces: int
    only_first: int  # faces that only the first classifies correctly
    only_second: int
    accuracy: Difference  # interval by bootstrap, p by McNemar's test
    macro_f1: Difference  # both by bootstrap


class RecipeComparison(NamedTuple):
    """Two recipes on the same faces, each trained with several seeds."""

    faces: int
    first: int  # number of seeds
    second: int
    accuracy: Difference  # of the means; interval and p by Welch's test
    macro_f1: Difference


class SampleMean(NamedTuple):
    """The mean of n values, the half width of its interval, and the standard deviation (over n - 1).

    Equal values say nothing about their spread: the half width is None.
    """

    n: int
    mean: float
    half_width: float | None
    std: float

    def interval(self, low: float = 0.0, high: float = 1.0) -> tuple[float, float | None, float | None]:
        """Return mean, lower and upper bound, clipped to the range of the values; bounds that are unknown are None."""
        if self.half_width is None:
            return self.mean, None, None
        return self.mean, max(low, self.mean - self.half_width), min(high, self.mean + self.half_width)


Comparison = TypeVar("Comparison", PairedComparison, RecipeComparison)


def compare_predictions(labels: Labels, first: Labels, second: Labels, num_classes: int) -> PairedComparison:
    """Compare the classes (N,) that two classifiers predicted for faces with `labels` (N,)."""
    first_correct, second_correct = first == labels, second == labels
    only_first = int((first_correct & ~second_correct).sum())
    only_second = int((second_correct & ~first_correct).sum())
    accuracy, macro_f1 = paired_bootstrap(labels, first, second, num_classes)
    accuracy = accuracy._replace(p=mcnemar(only_first, only_second))
    return PairedComparison(len(labels), only_first, only_second, accuracy, macro_f1)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (McNemar 1947) from the discordant counts."""
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


def paired_bootstrap(
    labels: Labels, first: Labels, second: Labels, num_classes: int, seed: int = 0
) -> tuple[Difference, Difference]:
    """Return the differences in accuracy and macro F1 by a paired percentile bootstrap over faces (Efron 1979).

    Only the triple of label and both predictions matters, so resampling faces is resampling counts of the triples.
    """
    triples = np.ravel_multi_index((labels, first, second), (num_classes,) * 3)
    present, counts = np.unique(triples, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(labels), counts / len(labels), PAIRED_RESAMPLES)
    accuracy, macro_f1 = _score_differences(counts[None], present, num_classes)
    resampled_accuracy, resampled_macro_f1 = _score_differences(draws, present, num_classes)
    return _bootstrap_difference(accuracy, resampled_accuracy), _bootstrap_difference(macro_f1, resampled_macro_f1)


def sample_mean(values: Sequence[float]) -> SampleMean:
    """Return the mean of two or more values with Student's t interval (Student 1908).

    Of the scores of several seeds, the interval covers further seeds on the same faces, and no other faces.
    """
    n, std = len(values), float(np.std(values, ddof=1)) if np.ptp(values) else 0.0
    return SampleMean(n, float(np.mean(values)), float(stdtrit(n - 1, 0.975)) * std / n**0.5 if std else None, std)


def welch(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Return the difference of the mean shares of two or more seeds each by Welch's t-test (Welch 1947).

    The interval is clipped to [-1, 1]. If the shares of neither side vary, nothing is known about random variation: the
    interval is [-1, 1] and p is 1.
    """
    from scipy.stats import ttest_ind

    difference = float(np.mean(second) - np.mean(first))
    if np.ptp(first) == np.ptp(second) == 0:
        return Difference(difference, -1.0, 1.0, 1.0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)  # one side does not vary
        result = ttest_ind(second, first, equal_var=False)
    interval = result.confidence_interval()
    lower, upper = max(-1.0, float(interval.low)), min(1.0, float(interval.high))
    return Difference(difference, lower, upper, float(result.pvalue))


def holm_corrected(tests: list[Comparison]) -> list[Comparison]:
    """Return the same tests with both p-values of each corrected for the number of all tests."""
    p_values = iter(holm([p for test in tests for p in (test.accuracy.p, test.macro_f1.p)]))
    return [
        test._replace(
            accuracy=test.accuracy._replace(p=next(p_values)), macro_f1=test.macro_f1._replace(p=next(p_values))
        )
        for test in tests
    ]


def holm(p_values: list[float]) -> list[float]:
    """Return p-values adjusted for multiple testing, in the given order (Holm 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def wilson_interval(share: float | Tensor, n: int | Tensor) -> list[float]:
    """Return a share of n faces with its Wilson interval: [share, lower, upper]; [0, 0, 1] without faces."""
    from scipy.stats import binomtest

    share, n = float(share), int(n)
    if n == 0:
        return [0.0, 0.0, 1.0]
    interval = binomtest(round(share * n), n).proportion_ci(method="wilson")
    return [share, float(interval.low), float(interval.high)]


def normal_interval(values: Tensor) -> list[float | None]:
    """Return the mean of values (N,) of 0 or more with its normal interval, which is clipped to 0.

    Fewer than two values have no interval.
    """
    if len(values) < 2:
        return [float(values.mean()) if len(values) else None, None, None]
    mean, half_width = float(values.mean()), float(ndtri(0.975)) * float(values.std()) / len(values) ** 0.5
    return [mean, max(0.0, mean - half_width), mean + half_width]


def percentile_interval(value: Tensor, resampled: Tensor, n: int | Tensor) -> list[float]:
    """Return a share () of n faces with the interval of 95 % of its resampled values (R,); [0, 0, 1] without faces."""
    if n == 0:
        return [0.0, 0.0, 1.0]
    lower, upper = np.quantile(resampled.numpy(), [0.025, 0.975])
    return [float(value), float(lower), float(upper)]


def bootstrap_scores(confusion: Tensor) -> ClassScores:
    """Return the scores of resampled confusion matrices with as many faces as the observed one (K, K)."""
    total = int(confusion.sum())
    if total == 0:
        return class_scores(confusion.expand(SCORE_RESAMPLES, -1, -1))
    draws = np.random.default_rng(0).multinomial(total, confusion.flatten().numpy() / total, SCORE_RESAMPLES)
    return class_scores(torch.from_numpy(draws).view(SCORE_RESAMPLES, *confusion.shape))


def _score_differences(counts: NDArray[np.int64], triples: Labels, num_classes: int) -> tuple[Shares, Shares]:
    """Return accuracy and macro F1, second minus first, (R,) each, for counts (R, T) of the triples (T,)."""
    true, first, second = np.unravel_index(triples, (num_classes,) * 3)
    scores = []
    for predicted in (first, second):
        confusion = torch.zeros(len(counts), num_classes**2, dtype=torch.long)
        confusion.index_add_(1, torch.from_numpy(true * num_classes + predicted), torch.from_numpy(counts))
        scores.append(class_scores(confusion.view(-1, num_classes, num_classes)))
    return (scores[1].accuracy - scores[0].accuracy).numpy(), (scores[1].macro_f1 - scores[0].macro_f1).numpy()


def _bootstrap_difference(observed: Shares, resampled: Shares) -> Difference:
    lower, upper = np.quantile(resampled, [0.025, 0.975])
    tail = min((resampled <= 0).sum(), (resampled >= 0).sum())
    p = min(1.0, 2 * (int(tail) + 1) / (len(resampled) + 1))
    return Difference(float(observed[0]), float(lower), float(upper), p)
