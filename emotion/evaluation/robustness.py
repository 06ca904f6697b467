"""Accuracy on corrupted faces, by corruption and severity."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emotion.checkpoints.ensemble import Ensemble
from emotion.data.transforms.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from emotion.evaluation.score import EvaluationResult, predict_probabilities
from emotion.metrics.statistics import wilson_interval

CHUNK_SIZE = 2048  # faces corrupted at once


def robustness(
    ensemble: Ensemble,
    images: NDArray[np.uint8],
    result: EvaluationResult,
    precision: str | int = "32-true",
    on_step: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Evaluate the rows and TTA of `result` again under each corruption and severity.

    Returns accuracy (a list of [value, lower, upper] by severity for each corruption), uncorrupted_accuracy,
    mean_corruption_accuracy, and the ratio of both as `relative`. `on_step` is called after each severity.
    """
    accuracy: dict[str, list[list[float]]] = {}
    for corruption in CORRUPTIONS:
        accuracy[corruption] = []
        for severity in SEVERITIES:
            correct = _correct(ensemble, images, result, corruption, severity, precision)
            accuracy[corruption].append(wilson_interval(correct.double().mean(), len(correct)))
            on_step()
    mean = float(np.mean([[value for value, _, _ in intervals] for intervals in accuracy.values()]))
    uncorrupted = result.scores["all"]["accuracy"]
    return {
        "accuracy": accuracy,
        "uncorrupted_accuracy": uncorrupted,
        "mean_corruption_accuracy": mean,
        "relative": mean / uncorrupted[0] if uncorrupted[0] else None,
    }


def _correct(
    ensemble: Ensemble,
    images: NDArray[np.uint8],
    result: EvaluationResult,
    corruption: str,
    severity: int,
    precision: str | int,
) -> torch.Tensor:
    """Return whether each of the rows (n,) is still classified correctly."""
    parts = []
    for start in range(0, len(result.rows), CHUNK_SIZE):
        chunk = slice(start, start + CHUNK_SIZE)
        faces = corrupt(images, result.rows[chunk], corruption, severity)
        probabilities = predict_probabilities(ensemble, faces, np.arange(len(faces)), result.scores["tta"], precision)
        parts.append(probabilities.argmax(-1) == torch.from_numpy(result.labels[chunk]))
    return torch.cat(parts)
