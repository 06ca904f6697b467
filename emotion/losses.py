"""Losses of logits (B, K) against targets (B,), told how many training faces each class has."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def cross_entropy(class_counts: Sequence[int], balanced: bool = False, label_smoothing: float = 0.0) -> nn.Module:
    """Cross-entropy; `balanced` weighs each class by `balanced_weights`."""
    weight = balanced_weights(class_counts) if balanced else None
    return nn.CrossEntropyLoss(weight=weight, label_smoothing=label_smoothing)


def balanced_weights(class_counts: Sequence[int]) -> Tensor:
    """N / (K n_c) for each of K classes with n_c of N faces: 1 for all where they are equally many."""
    counts = torch.as_tensor(class_counts, dtype=torch.float32)
    return counts.sum() / (len(counts) * counts)
