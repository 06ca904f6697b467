"""Selective classification: accuracy if only the most confident predictions are given.

Geifman and El-Yaniv 2017, https://arxiv.org/abs/1705.08500. Confidence is the largest probability; coverage is the
share of the faces that get a prediction.
"""

import math

import torch
from torch import Tensor

COVERAGES = (0.5, 0.8, 0.9)
"""Coverages whose accuracy is reported."""


def risk_by_coverage(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the error rate among the 1, 2, ..., N most confident of probabilities (N, K), float64 (N,).

    Faces of equal confidence have no order: each counts with their mean error.
    """
    confidence, predicted = probabilities.max(-1)
    order = confidence.argsort(descending=True, stable=True)
    wrong = (predicted != labels)[order].double()
    _, group, sizes = torch.unique_consecutive(confidence[order], return_inverse=True, return_counts=True)
    means = torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, group, wrong) / sizes
    risk: Tensor = means[group].cumsum(0) / torch.arange(1, len(wrong) + 1)
    return risk


def num_answered(coverage: float, faces: int) -> int:
    """Return the number of `faces` at a coverage, rounded up."""
    return math.ceil(round(coverage * faces, 6))
