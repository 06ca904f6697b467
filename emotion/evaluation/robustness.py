"""What corrupted faces cost: a judge's accuracy under every corruption and severity."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emotion.checkpoints.ensemble import Ensemble
from emotion.data.transforms.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from emotion.evaluation.score import Judged, probabilities
from emotion.metrics.statistics import wilson

AT_ONCE = 2048  # faces that are corrupted before they are asked for


def robustness(
    judge: Ensemble,
    images: NDArray[np.uint8],
    judged: Judged,
    precision: str | int = "32-true",
    done: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Accuracy with interval by corruption and severity, of all rows that were judged and with the same views.

    Besides the mean over all of them, and what that is of the accuracy on the faces as they are; `done` is called after
    each severity.
    """
    accuracy: dict[str, list[list[float]]] = {}
    for corruption in CORRUPTIONS:
        accuracy[corruption] = []
        for severity in SEVERITIES:
            right = _right(judge, images, judged, corruption, severity, precision)
            accuracy[corruption].append(wilson(right.double().mean(), torch.tensor(len(right))))
            done()
    mean = float(np.mean([[figure[0] for figure in figures] for figures in accuracy.values()]))
    uncorrupted = judged.scores["all"]["accuracy"]
    return {
        "accuracy": accuracy,
        "uncorrupted_accuracy": uncorrupted,
        "mean_corruption_accuracy": mean,
        "relative": mean / uncorrupted[0] if uncorrupted[0] else None,
    }


def _right(
    judge: Ensemble, images: NDArray[np.uint8], judged: Judged, corruption: str, severity: int, precision: str | int
) -> torch.Tensor:
    """Whether each of the rows (n,) is still told rightly."""
    parts = []
    for start in range(0, len(judged.rows), AT_ONCE):
        rows = judged.rows[start : start + AT_ONCE]
        worse = corrupted(images, rows, corruption, severity)
        found = probabilities(judge, worse, np.arange(len(rows)), judged.scores["tta"], precision)
        parts.append(found.argmax(-1) == torch.from_numpy(judged.labels[start : start + AT_ONCE]))
    return torch.cat(parts)
