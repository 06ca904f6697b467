"""Whether probabilities (N, K) mean what they say, against labels (N,)."""

import torch
from torch import Tensor

LEAST = 1e-12
"""A probability below this counts as this: one face cannot make a loss infinite."""


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Tensor:
    """How far confidence lies from accuracy, 0 to 1: Guo et al. 2017, section 2, https://arxiv.org/abs/1706.04599.

    Faces fall into `bins` equal ranges of their confidence, the largest probability; the mean, over faces, of the
    distance between a bin's mean confidence and its accuracy.
    """
    confidence, predicted = probabilities.max(-1)
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1  # (low, high], as in the paper
    gap = torch.zeros(bins, dtype=torch.float64)
    gap.index_add_(0, place, confidence.double() - (predicted == labels).double())
    return gap.abs().sum() / max(1, len(labels))


def negative_log_likelihood(probabilities: Tensor, labels: Tensor) -> Tensor:
    """-log of the true class's probability, a number a face (N,)."""
    return -probabilities.double().gather(1, labels[:, None])[:, 0].clamp(min=LEAST).log()


def cross_entropy_to(shares: Tensor, probabilities: Tensor) -> Tensor:
    """-sum of a class's share times the log of its probability, a number a face (N,), for shares (N, K)."""
    return -(shares.double() * probabilities.double().clamp(min=LEAST).log()).sum(-1)


def brier(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Squared distance to the true class's one-hot vector, a number from 0 to 2 a face (N,): Brier 1950."""
    truth = torch.nn.functional.one_hot(labels, probabilities.shape[1])
    return (probabilities.double() - truth).square().sum(-1)
