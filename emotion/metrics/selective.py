"""How right the surest answers are: selective classification, Geifman and El-Yaniv 2017, https://arxiv.org/abs/1705.08500.

Faces are asked for in the order of their confidence, the largest probability; coverage is the share that is answered.
"""

import math

import torch
from torch import Tensor

COVERAGES = (0.5, 0.8, 0.9)
"""Of which the scores tell the accuracy."""


def risk_by_coverage(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The share of wrong answers (N,) among the 1, 2, ..., N surest of probabilities (N, K), in float64.

    Equally sure faces come in no order: each counts as wrong as they are on average.
    """
    confidence, predicted = probabilities.max(-1)
    order = confidence.argsort(descending=True, stable=True)
    wrong = (predicted != labels)[order].double()
    _, group, sizes = torch.unique_consecutive(confidence[order], return_inverse=True, return_counts=True)
    means = torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, group, wrong) / sizes
    risk: Tensor = means[group].cumsum(0) / torch.arange(1, len(wrong) + 1)
    return risk


def answered(coverage: float, faces: int) -> int:
    """How many of `faces` a coverage is, rounded up."""
    return math.ceil(round(coverage * faces, 6))
