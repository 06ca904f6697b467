"""Accuracy on corrupted faces, by corruption and severity."""

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from emotion.checkpoints.ensemble import Ensemble
from emotion.data.transforms.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from emotion.evaluation.score import EvaluationResult, predict_probabilities
from emotion.metrics.statistics import wilson_interval
from emotion.runtime.announce import is_terminal

CHUNK_SIZE = 2048  # faces corrupted at once


def robustness(
    ensemble: Ensemble,
    images: NDArray[np.uint8],
    result: EvaluationResult,
    precision: str | int = "32-true",
) -> dict[str, Any]:
    """Evaluate the rows and TTA of `result` again under each corruption and severity, with a bar on a terminal.

    Returns accuracy (a list of [value, lower, upper] by severity for each corruption), uncorrupted_accuracy,
    mean_corruption_accuracy, and the ratio of both as `relative`.
    """
    accuracy: dict[str, list[list[float]]] = {corruption: [] for corruption in CORRUPTIONS}
    steps = list(product(CORRUPTIONS, SEVERITIES))
    for corruption, severity in track(steps, "corrupted faces", transient=True, disable=not is_terminal()):
        correct = 0
        for start in range(0, len(result.rows), CHUNK_SIZE):
            chunk = slice(start, start + CHUNK_SIZE)
            faces = corrupt(images, result.rows[chunk], corruption, severity)
            rows, tta = np.arange(len(faces)), result.scores["tta"]
            predicted = predict_probabilities(ensemble, faces, rows, tta, precision).argmax(-1).numpy()
            correct += int((predicted == result.labels[chunk]).sum())
        accuracy[corruption].append(wilson_interval(correct / len(result.rows), len(result.rows)))
    mean = float(np.mean([[value for value, _, _ in intervals] for intervals in accuracy.values()]))
    uncorrupted = result.scores["all"]["accuracy"]
    return {
        "accuracy": accuracy,
        "uncorrupted_accuracy": uncorrupted,
        "mean_corruption_accuracy": mean,
        "relative": mean / uncorrupted[0] if uncorrupted[0] else None,
    }
