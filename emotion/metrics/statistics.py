"""Whether two classifiers differ by more than chance on the same faces, and whether two recipes do by their seeds."""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit
from torch import Tensor

from emotion.metrics.classification import class_scores

RESAMPLES = 10_000
CHANCE = 0.05
"""A p-value from here on is not called a difference."""

Labels = NDArray[np.integer]
Shares = NDArray[np.float64]


class Difference(NamedTuple):
    """Second less first, as a share, with its 95 % interval and a two-sided p-value."""

    figure: float
    lower: float
    upper: float
    p: float


class Paired(NamedTuple):
    """Two classifiers on the same faces."""

    faces: int
    only_first: int  # faces that the first has right and the second wrong
    only_second: int
    accuracy: Difference  # interval by bootstrap, p by McNemar's test
    macro_f1: Difference  # both by bootstrap


class Recipes(NamedTuple):
    """Two recipes on the same faces, by several seeds of each."""

    faces: int
    first: int  # seeds
    second: int
    accuracy: Difference  # of the means; interval and p by Welch's test
    macro_f1: Difference


class Mean(NamedTuple):
    """Of n shares: their mean, how far its 95 % interval goes to either side, their standard deviation over n - 1."""

    n: int
    figure: float
    half: float
    deviation: float

    @property
    def interval(self) -> tuple[float, float, float]:
        """The mean between its bounds, which end where a share must."""
        return self.figure, max(0.0, self.figure - self.half), min(1.0, self.figure + self.half)


Tested = TypeVar("Tested", Paired, Recipes)


def compare(labels: Labels, first: Labels, second: Labels, classes: int) -> Paired:
    """Labels (N,) and the classes that each predicted (N,)."""
    right, other_right = first == labels, second == labels
    only_first, only_second = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    accuracy, macro_f1 = paired_bootstrap(labels, first, second, classes)
    accuracy = accuracy._replace(p=mcnemar(only_first, only_second))
    return Paired(len(labels), only_first, only_second, accuracy, macro_f1)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of as uneven a split of the faces that one classifier alone has right: McNemar 1947."""
    n = only_first + only_second
    k = torch.arange(min(only_first, only_second) + 1, dtype=torch.float64)
    total = torch.tensor(n, dtype=torch.float64)
    log_choices = (total + 1).lgamma() - (k + 1).lgamma() - (total - k + 1).lgamma()
    return min(1.0, 2 * math.exp(float(log_choices.logsumexp(0)) - n * math.log(2)))


def paired_bootstrap(
    labels: Labels, first: Labels, second: Labels, classes: int, seed: int = 0
) -> tuple[Difference, Difference]:
    """Differences in accuracy and in macro F1, faces drawn anew with what both made of them: Efron 1979.

    A face counts by its label and both predictions alone, so that drawing faces is drawing counts of those triples.
    """
    triples = np.ravel_multi_index((labels, first, second), (classes,) * 3)
    seen, counts = np.unique(triples, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(labels), counts / len(labels), RESAMPLES)
    found = _differences(counts[None], seen, classes)
    resampled = _differences(draws, seen, classes)
    return _summary(found[0], resampled[0]), _summary(found[1], resampled[1])


def mean_of(shares: Sequence[float]) -> Mean:
    """Of the shares that two or more seeds reached, as draws from a normal distribution: Student 1908.

    The interval is of what more seeds would have as their mean on the same faces; it knows nothing of other faces.
    """
    n, deviation = len(shares), _variance(shares) ** 0.5
    return Mean(n, float(np.mean(shares)), float(stdtrit(n - 1, 0.975)) * deviation / n**0.5, deviation)


def welch(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Difference of the means of two or more seeds' shares each, whose deviations may differ: Welch 1947.

    Where no seed of either deviates, nothing is known of chance: any difference may be, and p is 1.
    """
    gap = float(np.mean(second) - np.mean(first))
    one, other = _variance(first) / len(first), _variance(second) / len(second)
    error = (one + other) ** 0.5
    if error == 0:
        return Difference(gap, -1.0, 1.0, 1.0)
    degrees = (one + other) ** 2 / (one**2 / (len(first) - 1) + other**2 / (len(second) - 1))
    half = float(stdtrit(degrees, 0.975)) * error
    return Difference(gap, gap - half, gap + half, 2 * float(stdtr(degrees, -abs(gap) / error)))


def corrected(tests: list[Tested]) -> list[Tested]:
    """The same with p-values that stay honest together, two of each test."""
    p_values = iter(holm([p for one in tests for p in (one.accuracy.p, one.macro_f1.p)]))
    return [
        one._replace(accuracy=one.accuracy._replace(p=next(p_values)), macro_f1=one.macro_f1._replace(p=next(p_values)))
        for one in tests
    ]


def holm(p_values: list[float]) -> list[float]:
    """p-values adjusted for being several, in the order given: Holm 1979."""
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def _variance(shares: Sequence[float]) -> float:
    """Over n - 1; of equal shares nothing, where rounding would leave a little that every gap is far beyond."""
    return float(np.var(shares, ddof=1)) if np.ptp(shares) else 0.0


def _differences(counts: NDArray[np.int64], triples: Labels, classes: int) -> tuple[Shares, Shares]:
    """Accuracy and macro F1, second less first, of each row of counts (R, T) of the triples (T,)."""
    true, first, second = np.unravel_index(triples, (classes,) * 3)
    scores = []
    for predicted in (first, second):
        confusion = torch.zeros(len(counts), classes * classes, dtype=torch.long)
        confusion.index_add_(1, torch.from_numpy(true * classes + predicted), torch.from_numpy(counts))
        scores.append(class_scores(confusion.view(-1, classes, classes)))
    return (scores[1].accuracy - scores[0].accuracy).numpy(), (scores[1].macro_f1 - scores[0].macro_f1).numpy()


def _summary(found: Shares, resampled: Shares) -> Difference:
    lower, upper = np.quantile(resampled, [0.025, 0.975])
    tail = min((resampled <= 0).sum(), (resampled >= 0).sum())
    return Difference(float(found[0]), float(lower), float(upper), min(1.0, 2 * (int(tail) + 1) / (len(resampled) + 1)))


CONFIDENCE_Z = 1.959964  # 95 %, two-sided


RESAMPLES = 2000


def _resampled(confusion: Tensor) -> Tensor:
    total = int(confusion.sum())
    if total == 0:
        return confusion.expand(RESAMPLES, -1, -1)
    draws = np.random.default_rng(0).multinomial(total, confusion.flatten().numpy() / total, RESAMPLES)
    return torch.from_numpy(draws).view(RESAMPLES, *confusion.shape)


def wilson(share: Tensor, count: Tensor) -> list[float]:
    """A share () of `count` faces () with its 95 % interval: Wilson 1927."""
    p, n, z = float(share), int(count), CONFIDENCE_Z
    if n == 0:
        return [0.0, 0.0, 1.0]
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5 / (1 + z * z / n)
    return [p, max(0.0, middle - half), min(1.0, middle + half)]


def _percentile(figure: Tensor, resampled: Tensor) -> list[float]:
    lower, upper = np.quantile(resampled.numpy(), [0.025, 0.975])
    return [float(figure), float(lower), float(upper)]


def mean_with_interval(values: Tensor) -> list[float | None]:
    """The mean of values (n,) with its 95 % interval, a normal one; of fewer than two, no interval."""
    if len(values) < 2:  # nothing is known of their spread
        return [float(values.mean()) if len(values) else None, None, None]
    mean, half = float(values.mean()), CONFIDENCE_Z * float(values.std()) / len(values) ** 0.5
    return [mean, mean - half, mean + half]
