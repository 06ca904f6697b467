"""Scores of predictions: the one scorer behind every record, used after training and by evaluate."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from emotion.checkpoints.ensemble import Ensemble
from emotion.data.duplicates import fingerprint
from emotion.metrics.calibration import (
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    soft_cross_entropy,
)
from emotion.metrics.classification import class_scores, confusion_matrix
from emotion.metrics.selective import COVERAGES, num_answered, risk_by_coverage
from emotion.metrics.statistics import bootstrap_scores, normal_interval, percentile_interval, wilson_interval
from emotion.runtime.announce import is_terminal

BATCH_SIZE = 256


class EvaluationResult(NamedTuple):
    """An ensemble's predictions on n rows, and their scores."""

    scores: dict[str, Any]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    deduplicated: NDArray[np.bool_]  # whether the pixels are not among the training rows
    probabilities: Tensor  # (n, K)
    uncalibrated: Tensor | None  # (n, K) at temperature 1; None if every temperature is 1


def predict_probabilities(
    ensemble: Ensemble,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    tta: str = "none",
    precision: str | int = "32-true",
    bar: str = "",
) -> Tensor:
    """Return probabilities (n, K), float32 on the CPU, for the faces `images[rows]`; see `batched_inference`."""
    ensemble.eval()
    return batched_inference(
        lambda pixels: ensemble.probabilities(pixels, tta), images, rows, ensemble.device, precision, bar
    )


@torch.inference_mode()
def batched_inference(
    function: Callable[[Tensor], Tensor],
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    device: torch.device,
    precision: str | int = "32-true",
    bar: str = "",
) -> Tensor:
    """Apply `function` to batches of the raw faces `images[rows]`; return (n, ...), float32 on the CPU.

    With the label `bar`, a bar shows the progress on a terminal.
    """
    pixels, outputs, starts = torch.from_numpy(images), [], range(0, len(rows), BATCH_SIZE)
    with torch.autocast(device.type, torch.bfloat16, enabled=str(precision).startswith("bf16")):
        for start in track(starts, bar, transient=True, disable=not bar or not is_terminal()):
            batch = pixels[torch.from_numpy(rows[start : start + BATCH_SIZE])].to(device)
            outputs.append(function(batch).float().cpu())
    return torch.cat(outputs)


def score(
    probabilities: Tensor,
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    votes: NDArray[np.float32] | None = None,
    uncalibrated: Tensor | None = None,
) -> dict[str, Any]:
    """Return accuracy, macro F1, calibration and per-class scores, each as [value, lower, upper] (95 % interval).

    Accuracy, precision and recall have Wilson intervals; F1 scores a percentile bootstrap over confusion matrices;
    negative log-likelihood and Brier score normal intervals. The calibration error and the area under the risk-coverage
    curve (aurc) have none, because resampling can only increase the former. A share of no faces is [0, 0, 1], which
    tables show as a dash.

    Args:
        probabilities: (n, K).
        labels: (n,).
        classes: K names.
        votes: Shares of the annotators' votes (n, K), to report the cross-entropy to them and their entropy, its
            minimum.
        uncalibrated: Probabilities at temperature 1 (n, K), to report their calibration as well.
    """
    targets = torch.from_numpy(labels)
    confusion = confusion_matrix(targets, probabilities.argmax(-1), len(classes))
    scores, resampled = class_scores(confusion), bootstrap_scores(confusion)
    true, predicted = confusion.sum(1), confusion.sum(0)
    result = {
        "n": len(labels),
        "accuracy": wilson_interval(scores.accuracy, len(labels)),
        "macro_f1": percentile_interval(scores.macro_f1, resampled.macro_f1, len(labels)),
        **_calibration(probabilities, targets),
        "selective": _selective(probabilities, targets),
        "classes": {
            name: {
                "n": int(true[i]),
                "precision": wilson_interval(scores.precision[i], predicted[i]),
                "recall": wilson_interval(scores.recall[i], true[i]),
                "f1": percentile_interval(scores.f1[i], resampled.f1[:, i], true[i] + predicted[i]),
            }
            for i, name in enumerate(classes)
        },
        "confusion": confusion.tolist(),
    }
    if uncalibrated is not None:
        result["uncalibrated"] = _calibration(uncalibrated, targets)
    if votes is not None:
        shares = torch.from_numpy(votes)
        result["votes"] = {
            "cross_entropy": normal_interval(soft_cross_entropy(shares, probabilities)),
            "entropy": normal_interval(torch.special.entr(shares.double()).sum(-1)),
        }
    return result


def score_rows(
    ensemble: Ensemble,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    training_rows: NDArray[np.int64],
    tta: Sequence[str] = ("none",),
    precision: str | int = "32-true",
    votes: NDArray[np.float32] | None = None,
) -> dict[str, EvaluationResult]:
    """Evaluate `rows` with each TTA, and score all of them and the deduplicated ones.

    Args:
        ensemble: The classifiers. They evaluate the unchanged face once for all kinds of TTA.
        images: All faces of the source, uint8 (N, H, W) or (N, H, W, 3).
        labels: Their labels (N,).
        rows: Rows to evaluate (n,).
        training_rows: Rows (m,) that a member was trained on; `rows` with the same pixels are not deduplicated.
        tta: Names of test-time augmentations.
        precision: `32-true` or `bf16-mixed`.
        votes: Shares of the annotators' votes on all faces (N, K).
    """
    for member in ensemble.eval().members:
        member.optimize_for_device(channels_last=True)  # 1.2 to 1.8 times as fast on a CPU
    outputs = batched_inference(
        lambda pixels: ensemble.with_and_without_temperature(pixels, tta),
        images,
        rows,
        ensemble.device,
        precision,
        "faces",
    )
    deduplicated = ~duplicated_in(images, rows, training_rows)
    subsets = {"all": np.ones_like(deduplicated), "deduplicated": deduplicated}
    results = {}
    for name, pair in zip(tta, outputs.unbind(1), strict=True):
        probabilities, at_temperature_one = pair.unbind(1)
        uncalibrated = at_temperature_one if set(ensemble.temperatures) != {1.0} else None
        scores: dict[str, Any] = {
            "tta": name,
            "precision": "bf16-mixed" if str(precision).startswith("bf16") else "32-true",
        }
        for subset, mask in subsets.items():
            scores[subset] = score(
                probabilities[mask],
                labels[rows[mask]],
                ensemble.classes,
                None if votes is None else votes[rows[mask]],
                None if uncalibrated is None else uncalibrated[mask],
            )
        predicted = probabilities.argmax(-1).numpy()
        results[name] = EvaluationResult(
            scores, rows, labels[rows], predicted, deduplicated, probabilities, uncalibrated
        )
    return results


def duplicated_in(images: NDArray[np.uint8], rows: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each of `rows` (n,) whether its exact pixels occur among `others`."""
    fingerprints = {fingerprint(images[row]) for row in others}
    return np.array([fingerprint(images[row]) in fingerprints for row in rows], bool)


def accuracy_and_f1(predicted: Tensor, labels: Tensor, num_classes: int) -> dict[str, list[float]]:
    """Return accuracy and macro F1 of predictions (n,) with their intervals, as in `score`."""
    confusion = confusion_matrix(labels, predicted, num_classes)
    scores = class_scores(confusion)
    return {
        "accuracy": wilson_interval(scores.accuracy, len(labels)),
        "macro_f1": percentile_interval(scores.macro_f1, bootstrap_scores(confusion).macro_f1, len(labels)),
    }


def _calibration(probabilities: Tensor, targets: Tensor) -> dict[str, Any]:
    return {
        "ece": float(expected_calibration_error(probabilities, targets)) if len(targets) else None,
        "nll": normal_interval(negative_log_likelihood(probabilities, targets)),
        "brier": normal_interval(brier_score(probabilities, targets)),
    }


def _selective(probabilities: Tensor, targets: Tensor) -> dict[str, Any]:
    risk, accuracy = risk_by_coverage(probabilities, targets), {}
    for coverage in COVERAGES:
        n = num_answered(coverage, len(targets))
        accuracy[str(coverage)] = wilson_interval(1 - risk[n - 1] if n else 0.0, n)
    return {"aurc": float(risk.mean()) if len(targets) else None, "accuracy": accuracy}
