"""Calibration of probabilities (N, K) against labels (N,), and the temperature that calibrates them."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import softmax
from torch import Tensor

MIN_PROBABILITY = 1e-12
"""Lower bound of a probability in a logarithm, so that one face cannot make a loss infinite."""

MAX_TEMPERATURE, MIN_TEMPERATURE = 20.0, 1e-4
"""Bounds of the search, in units of the mean range of a face's logits."""


class Reliability(NamedTuple):
    """Faces binned by confidence, their largest probability, in equal ranges (bins,)."""

    faces: Tensor  # count
    confidence: Tensor  # mean; 0 in an empty bin
    accuracy: Tensor  # 0 in an empty bin


def reliability(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Reliability:
    """Return confidence and accuracy in `bins` ranges (low, high], as in Guo et al. 2017."""
    confidence, predicted = probabilities.max(-1)
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    faces = torch.bincount(index, minlength=bins)
    correct = (predicted == labels).double()
    sums = (torch.bincount(index, values, minlength=bins) for values in (confidence.double(), correct))
    return Reliability(faces, *(total / faces.clamp(min=1) for total in sums))


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Tensor:
    """Return the mean distance of confidence from accuracy over bins, weighted by faces; from 0 to 1.

    Guo et al. 2017, section 2, https://arxiv.org/abs/1706.04599.
    """
    binned = reliability(probabilities, labels, bins)
    return (binned.faces * (binned.confidence - binned.accuracy).abs()).sum() / max(1, len(labels))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the divisor of logits (N, K) that minimizes the negative log-likelihood: Guo et al. 2017, section 4.2.

    The derivative of the negative log-likelihood with respect to 1/T is the mean softmax-weighted logit minus the mean
    logit of the true class. It increases with 1/T, so its root is the minimum. Uninformative logits have no root; they
    get the maximum.

    Returns 1.0 if the faces do not determine a temperature: no face, fewer than two classes, every face correct (ever
    lower temperatures fit better), or logits that are not finite.
    """
    z, targets = logits.detach().cpu().double().numpy(), labels.cpu().numpy()
    if not z.size or z.shape[1] < 2 or not np.isfinite(z).all():
        return 1.0
    true = z[np.arange(len(z)), targets]
    if (true == z.max(1)).all():
        return 1.0

    def slope(log_temperature: float) -> float:
        return float(((softmax(z / np.exp(log_temperature), 1) * z).sum(1) - true).mean())

    low, high = np.log(np.ptp(z, 1).mean() * np.array([MIN_TEMPERATURE, MAX_TEMPERATURE]))
    if slope(high) >= 0:
        return float(np.exp(high))
    return float(np.exp(brentq(slope, low, high))) if slope(low) > 0 else float(np.exp(low))


def negative_log_likelihood(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return -log of the probability of the true class (N,)."""
    return -probabilities.double().gather(1, labels[:, None])[:, 0].clamp(min=MIN_PROBABILITY).log()


def soft_cross_entropy(targets: Tensor, probabilities: Tensor) -> Tensor:
    """Return the cross-entropy (N,) of probabilities to target distributions (N, K)."""
    return -(targets.double() * probabilities.double().clamp(min=MIN_PROBABILITY).log()).sum(-1)


def brier_score(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the squared distance to the one-hot label (N,), from 0 to 2: Brier 1950."""
    targets = torch.nn.functional.one_hot(labels, probabilities.shape[1])
    return (probabilities.double() - targets).square().sum(-1)
