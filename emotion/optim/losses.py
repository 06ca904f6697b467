"""Losses of logits (B, K) that receive the number of training faces of each class.

Targets are classes (B,) or probabilities (B, K). As in torch's cross-entropy, the mean divides by the sum of the class
weights for classes, by B for probabilities. For soft or sampled targets, `class_counts` are expected counts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as torch_cross_entropy
from torch.nn.functional import one_hot


def cross_entropy(class_counts: Sequence[float], balanced: float = 0.0, label_smoothing: float = 0.0) -> nn.Module:
    """Cross-entropy; `balanced` is the power of `balanced_weights`, as in every loss here."""
    weight = balanced_weights(class_counts, balanced) if balanced else None
    return nn.CrossEntropyLoss(weight=weight, label_smoothing=checked_smoothing(label_smoothing))


class FocalLoss(nn.Module):
    """Cross-entropy with each term scaled by (1 - p) ** gamma: Lin et al. 2017, https://arxiv.org/abs/1708.02002.

    With gamma 0 this is torch's cross-entropy with class weights and label smoothing. 1 - p is clamped to at least
    1e-8: at 0, a gamma below 1 has no gradient.

    Raises:
        ValueError: `gamma` is negative.
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
        self.register_buffer("weight", balanced_weights(class_counts, balanced), persistent=False)
        self.gamma, self.label_smoothing = gamma, checked_smoothing(label_smoothing)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Map logits (B, K) and targets (B,) or (B, K) to the mean loss ()."""
        log_p = logits.log_softmax(-1)
        error = (-log_p.expm1()).clamp(min=1e-8)  # 1 - p
        terms = -(error**self.gamma) * log_p * self.weight  # (B, K): the loss if each class were the target
        soft = targets.ndim == 2
        losses = (targets * terms).sum(-1) if soft else terms.gather(-1, targets[:, None])[:, 0]
        smoothed = losses.lerp(terms.mean(-1), self.label_smoothing)
        return smoothed.mean() if soft else smoothed.sum() / self.weight[targets].sum()


class LDAMLoss(nn.Module):
    """Cross-entropy with a larger margin for rarer classes: Cao et al. 2019, https://arxiv.org/abs/1906.07413.

    The target's logit is reduced by a margin proportional to n_c ** -1/4, `max_margin` for the rarest class; then all
    logits are multiplied by `scale`. A soft target reduces each logit by its share of the margin.

    Raises:
        ValueError: The margin is negative, or the scale not above 0.
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
        if max_margin < 0 or scale <= 0:
            raise ValueError(f"max_margin={max_margin}, scale={scale}; expected at least 0, and above 0.")
        margins = torch.as_tensor(class_counts, dtype=torch.float32) ** -0.25
        self.register_buffer("margins", max_margin * margins / margins.max(), persistent=False)
        self.register_buffer("weight", balanced_weights(class_counts, balanced), persistent=False)
        self.scale, self.label_smoothing = scale, checked_smoothing(label_smoothing)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Map logits (B, K) and targets (B,) or (B, K) to the mean loss ()."""
        shares = one_hot(targets, logits.shape[1]) if targets.ndim == 1 else targets
        reduced = logits - shares.to(logits.dtype) * self.margins.to(logits.dtype)
        return torch_cross_entropy(
            self.scale * reduced, targets, weight=self.weight, label_smoothing=self.label_smoothing
        )


class LogitAdjustedLoss(nn.Module):
    """Cross-entropy of logits plus `tau` times the logarithm of the class frequencies: Menon et al. 2021.

    With `tau` 1 the unadjusted logits classify as if all classes were equally frequent:
    https://arxiv.org/abs/2007.07314.

    Raises:
        ValueError: `tau` is negative.
    """

    weight: Tensor
    offsets: Tensor

    def __init__(
        self, class_counts: Sequence[float], tau: float = 1.0, balanced: float = 0.0, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        if tau < 0:
            raise ValueError(f"tau={tau}; expected 0 or more.")
        counts = torch.as_tensor(class_counts, dtype=torch.float32)
        self.register_buffer("offsets", tau * (counts / counts.sum()).log(), persistent=False)
        self.register_buffer("weight", balanced_weights(class_counts, balanced), persistent=False)
        self.label_smoothing = checked_smoothing(label_smoothing)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Map logits (B, K) and targets (B,) or (B, K) to the mean loss ()."""
        return torch_cross_entropy(
            logits + self.offsets, targets, weight=self.weight, label_smoothing=self.label_smoothing
        )


def balanced_weights(class_counts: Sequence[float], power: float = 1.0) -> Tensor:
    """Return class weights (K,) proportional to n_c ** -power, with mean 1 over all N faces.

    Power 1 (or true) gives N / (K n_c), so that all classes have equal influence; 0 (or false) gives 1 to each.

    Raises:
        ValueError: `power` is not from 0 to 1; above 1 the rarest class would have the most influence.
    """
    if not 0 <= power <= 1:
        raise ValueError(f"balanced={power}; expected a power from 0 to 1, or false or true for these two.")
    counts = torch.as_tensor(class_counts, dtype=torch.float32)
    return counts.sum() / ((counts ** (1 - float(power))).sum() * counts ** float(power))


def checked_smoothing(label_smoothing: float) -> float:
    """Return the share of the targets that is spread evenly over all classes; raises ValueError if not from 0 to 1."""
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing={label_smoothing}; expected a share from 0 to 1.")
    return label_smoothing
