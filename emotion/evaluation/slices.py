"""Scores of the quarters of the faces by something that each of them has, such as its brightness."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from emotion.evaluation.score import Judged, accuracy_and_f1


def by_quartile(values: NDArray[np.float64], judged: Judged, classes: int) -> list[dict[str, Any]]:
    """Of each quarter by `values` (n,), from the least: its range, n, accuracy and macro F1. NaN is in none.

    Equal values stay together, so that quarters are uneven, or fewer than four, where many are equal.
    """
    return [
        {"from": float(values[chosen].min()), "to": float(values[chosen].max()), "n": int(chosen.sum())}
        | accuracy_and_f1(torch.from_numpy(judged.predicted[chosen]), torch.from_numpy(judged.labels[chosen]), classes)
        for chosen in quartiles(values)
    ]


def quartiles(values: NDArray[np.float64]) -> list[NDArray[np.bool_]]:
    """Which of `values` (n,) are in each quarter that is not empty; equal ones are where the middle of them is."""
    known = ~np.isnan(values)
    place = np.full(len(values), -1)
    place[known] = 4 * (rankdata(values[known]) - 0.5) / max(1, known.sum())
    return [chosen for quarter in range(4) if (chosen := place == quarter).any()]


def brightness(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean grey level (n,), 0 to 255, of the faces `images[rows]`."""
    return np.array([images[row].mean() for row in rows])


def agreement(votes: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share (n,) of the votes (N, V) of each of `rows` that the largest is; NaN where nobody voted."""
    cast = votes[rows].astype(np.float64)
    total = cast.sum(1)
    return np.where(total > 0, cast.max(1) / np.maximum(total, 1), np.nan)
