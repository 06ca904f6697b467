"""Losses of logits (B, K), told how many training faces each class has.

Targets are classes (B,) or probabilities (B, K). As in torch's cross-entropy the mean divides by the sum of the class
weights for the former, by B for the latter: without class weights a one-hot target is worth what its class is.
Where training's targets are soft or drawn from votes, the number of faces is the expected one, the sum of their shares.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as torch_cross_entropy
from torch.nn.functional import one_hot


def cross_entropy(class_counts: Sequence[float], balanced: float = 0.0, label_smoothing: float = 0.0) -> nn.Module:
    """Cross-entropy; `balanced` is the power of `balanced_weights`, as in every loss here."""
    weight = balanced_weights(class_counts, balanced) if balanced else None
    return nn.CrossEntropyLoss(weight=weight, label_smoothing=label_smoothing)


class FocalLoss(nn.Module):
    """Cross-entropy whose every term counts (1 - p) ** gamma: Lin et al. 2017, https://arxiv.org/abs/1708.02002.

    The mean is torch's for cross-entropy with class weights and label smoothing, which this is where gamma is 0. 1 - p
    counts as at least 1e-8: at 0 a gamma below 1 has no gradient.

    Raises:
        ValueError: gamma is negative.
    """

    weight: Tensor

    def __init__(
        self,
        class_counts: Sequence[float],
        gamma: float = 2.0,
        balanced: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError(f"gamma={gamma}; expected 0 or more.")
        weight = balanced_weights(class_counts, balanced) if balanced else torch.ones(len(class_counts))
        self.register_buffer("weight", weight, persistent=False)
        self.gamma, self.label_smoothing = gamma, label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, K), targets (B,) or (B, K) to a mean ()."""
        log_p = logits.log_softmax(-1)
        wrong = (-log_p.expm1()).clamp(min=1e-8)  # 1 - p
        terms = -(wrong**self.gamma) * log_p * self.weight  # (B, K): should each class be the true one
        soft = targets.ndim == 2
        of_target = (targets * terms).sum(-1) if soft else terms.gather(-1, targets[:, None])[:, 0]
        smoothed = of_target.lerp(terms.mean(-1), self.label_smoothing)
        return smoothed.mean() if soft else smoothed.sum() / self.weight[targets].sum()


class LDAMLoss(nn.Module):
    """Cross-entropy with a margin that rare classes get more of: Cao et al. 2019, https://arxiv.org/abs/1906.07413.

    A face's own logit is lowered by a margin proportional to n_c ** -1/4, `max_margin` for the rarest class; then all
    logits are multiplied by `scale`. Where a face belongs to several classes, each has its share of its margin.
    """

    weight: Tensor
    margins: Tensor

    def __init__(
        self,
        class_counts: Sequence[float],
        max_margin: float = 0.5,
        scale: float = 1.0,
        balanced: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        margins = torch.as_tensor(class_counts, dtype=torch.float32) ** -0.25
        self.register_buffer("margins", max_margin * margins / margins.max(), persistent=False)
        weight = balanced_weights(class_counts, balanced) if balanced else torch.ones(len(class_counts))
        self.register_buffer("weight", weight, persistent=False)
        self.scale, self.label_smoothing = scale, label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, K), targets (B,) or (B, K) to a mean ()."""
        own = one_hot(targets, logits.shape[1]) if targets.ndim == 1 else targets
        lowered = logits - own.to(logits.dtype) * self.margins.to(logits.dtype)
        return torch_cross_entropy(
            self.scale * lowered, targets, weight=self.weight, label_smoothing=self.label_smoothing
        )


def balanced_weights(class_counts: Sequence[float], power: float = 1.0) -> Tensor:
    """Weights (K,) proportional to n_c ** -power for classes of n_c faces, 1 in the mean over all N faces.

    Power 1 (true) gives N / (K n_c), which makes all classes count alike; 0 (false) gives 1 to each.

    Raises:
        ValueError: power is not from 0 to 1: beyond 1 the rarest class would count most.
    """
    if not 0 <= power <= 1:
        raise ValueError(f"balanced={power}; expected a power from 0 to 1, or false or true for these two.")
    counts = torch.as_tensor(class_counts, dtype=torch.float32)
    return counts.sum() / ((counts ** (1 - float(power))).sum() * counts ** float(power))
