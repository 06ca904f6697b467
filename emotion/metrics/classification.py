"""Classification scores from confusion matrices, and the metrics of an epoch."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

EPOCH_METRICS = ("loss", "acc", "macro_f1")
"""Logged every epoch as train/loss, val/acc and so on."""


class ClassScores(NamedTuple):
    """Scores of confusion matrices (..., K, K); rows are true classes, columns predicted ones."""

    accuracy: Tensor  # (...)
    macro_f1: Tensor  # (...) mean over the classes that occur as label or prediction
    precision: Tensor  # (..., K), 0 for a class that is never predicted
    recall: Tensor  # (..., K), 0 for a class that does not occur
    f1: Tensor  # (..., K)


def class_scores(confusion: Tensor) -> ClassScores:
    """Score one confusion matrix or a batch of them."""
    confusion = confusion.cpu().double()  # some accelerators have no float64
    hits = confusion.diagonal(dim1=-2, dim2=-1)
    true, predicted = confusion.sum(-1), confusion.sum(-2)
    f1 = 2 * hits / (true + predicted).clamp(min=1)
    occurs = (true + predicted) > 0
    return ClassScores(
        accuracy=hits.sum(-1) / true.sum(-1).clamp(min=1),
        macro_f1=(f1 * occurs).sum(-1) / occurs.sum(-1).clamp(min=1),
        precision=hits / predicted.clamp(min=1),
        recall=hits / true.clamp(min=1),
        f1=f1,
    )


def confusion_matrix(targets: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """Count predictions (N,) of targets (N,) in a matrix (K, K)."""
    counts = torch.zeros(num_classes**2, dtype=torch.long, device=targets.device)  # bincount would sync the device
    counts.scatter_add_(0, targets * num_classes + predictions, torch.ones_like(targets))
    return counts.view(num_classes, num_classes)


def hard_labels(targets: Tensor) -> Tensor:
    """Return classes (B,) unchanged, and the most probable classes of probabilities (B, K)."""
    return targets if targets.ndim == 1 else targets.argmax(-1)


class EpochScores(Metric):
    """Loss, accuracy and macro F1 of an epoch; updating it does not wait for the device."""

    full_state_update = False
    confusion: Tensor
    loss: Tensor
    faces: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.long), "sum")
        self.add_state("loss", torch.zeros(()), "sum")
        self.add_state("faces", torch.zeros((), dtype=torch.long), "sum")

    def update(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a batch: its mean loss (), logits (B, K), targets (B,) or (B, K)."""
        self.confusion += confusion_matrix(hard_labels(targets), logits.argmax(-1), self.num_classes)
        self.loss += loss.detach() * len(targets)
        self.faces += len(targets)

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics of the batches so far."""
        scores = class_scores(self.confusion)
        values = (self.loss.cpu() / self.faces.cpu(), scores.accuracy.float(), scores.macro_f1.float())
        return dict(zip(EPOCH_METRICS, values, strict=True))

    def sums(self) -> dict[str, Tensor]:
        """Return the accumulated state, to store it in a checkpoint within an epoch."""
        return {name: getattr(self, name).clone() for name in self._defaults}

    def restore(self, sums: dict[str, Tensor]) -> None:
        """Continue from the state that `sums` returned."""
        for name, value in sums.items():
            getattr(self, name).copy_(value)
        self._update_count = 1
