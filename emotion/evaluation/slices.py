"""Scores by quartile of a property of the faces, such as brightness."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emotion.evaluation.score import EvaluationResult, accuracy_and_f1


def by_quartile(values: NDArray[np.float64], result: EvaluationResult, num_classes: int) -> list[dict[str, Any]]:
    """Return range, n, accuracy and macro F1 of each quartile of the rows by `values` (n,), lowest first.

    NaN is in no quartile. Equal values stay together, so many of them make quartiles uneven, or fewer than four.
    """
    predicted, labels = torch.from_numpy(result.predicted), torch.from_numpy(result.labels)
    return [
        {"from": float(values[mask].min()), "to": float(values[mask].max()), "n": int(mask.sum())}
        | accuracy_and_f1(predicted[mask], labels[mask], num_classes)
        for mask in quartiles(values)
    ]


def quartiles(values: NDArray[np.float64]) -> list[NDArray[np.bool_]]:
    """Return the masks (n,) of the quartiles that are not empty; equal values go where their mean rank belongs."""
    from scipy.stats import rankdata

    known = ~np.isnan(values)
    quartile = np.full(len(values), -1)
    quartile[known] = 4 * (rankdata(values[known]) - 0.5) / max(1, known.sum())
    return [mask for number in range(4) if (mask := quartile == number).any()]


def brightness(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean gray level (n,), 0 to 255, of the faces `images[rows]`."""
    return np.array([images[row].mean() for row in rows])


def agreement(votes: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share (n,) of the largest vote among the votes (N, V) on each of `rows`; NaN without votes."""
    counts = votes[rows].astype(np.float64)
    total = counts.sum(1)
    return np.where(total > 0, counts.max(1) / np.maximum(total, 1), np.nan)
