"""Whether probabilities (N, K) mean what they say, against labels (N,), and what makes them."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import softmax
from torch import Tensor

LEAST = 1e-12
"""A probability below this counts as this: one face cannot make a loss infinite."""

FLATTEST, SHARPEST = 20.0, 1e-4
"""Temperatures that are looked among, in units of the logits' mean distance from the least to the largest."""


class Reliability(NamedTuple):
    """Faces by their confidence, the largest probability, in equal ranges of it (bins,)."""

    faces: Tensor  # how many
    confidence: Tensor  # their mean; 0 in an empty range
    accuracy: Tensor  # 0 in an empty range


def reliability(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Reliability:
    """Confidence and accuracy in `bins` ranges, (low, high] as in Guo et al. 2017."""
    confidence, predicted = probabilities.max(-1)
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    faces = torch.bincount(place, minlength=bins)
    right = (predicted == labels).double()
    sums = (torch.bincount(place, values, minlength=bins) for values in (confidence.double(), right))
    return Reliability(faces, *(total / faces.clamp(min=1) for total in sums))


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Tensor:
    """How far confidence lies from accuracy, 0 to 1: Guo et al. 2017, section 2, https://arxiv.org/abs/1706.04599.

    The mean, over faces, of the distance between mean confidence and accuracy in the range that a face is in.
    """
    found = reliability(probabilities, labels, bins)
    return (found.faces * (found.confidence - found.accuracy).abs()).sum() / max(1, len(labels))


def fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """What logits (N, K) are to be divided by for the least negative log-likelihood: Guo et al. 2017, section 4.2.

    The likelihood's slope in 1/T is the mean logit under the softmax less the true class's. It rises with 1/T, so that
    its one root is the least. Where the logits say nothing of the labels there is none: the flattest temperature then.

    1.0 where the faces do not tell: none, no two classes, all of them right (the sharper the better, without end), or
    logits that are not numbers.
    """
    z, truth = logits.detach().cpu().double().numpy(), labels.cpu().numpy()
    if not z.size or z.shape[1] < 2 or not np.isfinite(z).all():
        return 1.0
    true = z[np.arange(len(z)), truth]
    if (true == z.max(1)).all():
        return 1.0

    def slope(log_temperature: float) -> float:
        return float(((softmax(z / np.exp(log_temperature), 1) * z).sum(1) - true).mean())

    sharpest, flattest = np.log(np.ptp(z, 1).mean() * np.array([SHARPEST, FLATTEST]))
    if slope(flattest) >= 0:
        return float(np.exp(flattest))
    return float(np.exp(brentq(slope, sharpest, flattest))) if slope(sharpest) > 0 else float(np.exp(sharpest))


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
