"""Scores from confusion matrices, and the running sums of an epoch from which they are made."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

EPOCH_METRICS = ("loss", "acc", "macro_f1")
"""What is logged of every epoch, as train/loss, val/acc and so on."""


class ClassScores(NamedTuple):
    """What confusion matrices (..., K, K) say; rows are true classes, columns predicted ones."""

    accuracy: Tensor  # (...)
    macro_f1: Tensor  # (...) the mean over classes that occur, truly or as predictions
    precision: Tensor  # (..., K), 0 for a class never predicted
    recall: Tensor  # (..., K), 0 for a class that does not occur
    f1: Tensor  # (..., K)


def class_scores(confusion: Tensor) -> ClassScores:
    """Scores of one confusion matrix or of many at once."""
    confusion = confusion.cpu().double()  # not every accelerator computes in 64 bits
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


def confusion_matrix(targets: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """Counts (K, K) of targets (N,) as predictions (N,)."""
    flat = torch.zeros(classes**2, dtype=torch.long, device=targets.device)  # bincount would wait for an accelerator
    return flat.scatter_add_(0, targets * classes + predictions, torch.ones_like(targets)).view(classes, classes)


def hard_labels(targets: Tensor) -> Tensor:
    """Classes (B,) as they are, and of probabilities (B, K) the likeliest class."""
    return targets if targets.ndim == 1 else targets.argmax(-1)


class EpochScores(Metric):
    """Loss, accuracy and macro F1 of an epoch. A step costs a few small operations and waits for no device."""

    full_state_update = False
    confusion: Tensor
    loss: Tensor
    faces: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state("confusion", torch.zeros(classes, classes, dtype=torch.long), "sum")
        self.add_state("loss", torch.zeros(()), "sum")
        self.add_state("faces", torch.zeros((), dtype=torch.long), "sum")

    def update(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """A batch: its mean loss (), logits (B, K), targets (B,) or (B, K)."""
        self.confusion += confusion_matrix(hard_labels(targets), logits.argmax(-1), self.classes)
        self.loss += loss.detach() * len(targets)
        self.faces += len(targets)

    def compute(self) -> dict[str, Tensor]:
        """The epoch's figures so far."""
        scores = class_scores(self.confusion)
        figures = (self.loss.cpu() / self.faces.cpu(), scores.accuracy.float(), scores.macro_f1.float())
        return dict(zip(EPOCH_METRICS, figures, strict=True))

    def sums(self) -> dict[str, Tensor]:
        """What has been added up, for a checkpoint in the middle of an epoch."""
        return {name: getattr(self, name).clone() for name in self._defaults}

    def restore(self, sums: dict[str, Tensor]) -> None:
        """Go on from what `sums` gave."""
        for name, value in sums.items():
            getattr(self, name).copy_(value)
        self._update_count = 1
