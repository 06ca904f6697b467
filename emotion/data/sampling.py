"""Samplers: which training faces an epoch takes, and in which order.

Each takes the labels (N,) of the training faces and a generator that belongs to the epoch, and returns N places.
"""

import torch
from torch import Tensor


def shuffled(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Every face once."""
    return torch.randperm(len(labels), generator=generator)


def weighted(labels: Tensor, generator: torch.Generator, power: float = 1.0) -> Tensor:
    """With replacement, a face of a class of n_c faces with probability proportional to n_c ** -power.

    Power 1 makes the classes equally frequent, 0.5 is square-root sampling: Mahajan et al. 2018, section 2.2,
    https://arxiv.org/abs/1805.00932.
    """
    weights = labels.bincount().double().pow(-power)[labels].cumsum(0)
    draws = torch.rand(len(labels), generator=generator, dtype=torch.float64) * weights[-1]
    return torch.searchsorted(weights, draws, right=True).clamp_(max=len(labels) - 1)  # should rounding reach the end
