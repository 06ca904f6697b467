"""The one way in which a checkpoint is scored: after training, by evaluate, and so in every record."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotion.checkpoints.ensemble import Ensemble
from emotion.data.duplicates import fingerprint
from emotion.metrics.calibration import brier, cross_entropy_to, expected_calibration_error, negative_log_likelihood
from emotion.metrics.classification import class_scores, confusion_matrix
from emotion.metrics.selective import COVERAGES, answered, risk_by_coverage
from emotion.metrics.statistics import _percentile, _resampled, mean_with_interval, wilson

BATCH = 256


class Judged(NamedTuple):
    """What classifiers made of the faces of some rows (n,)."""

    scores: dict[str, Any]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    clean: NDArray[np.bool_]  # whose pixels do not stand in training
    probabilities: Tensor  # (n, K)
    untempered: Tensor | None  # (n, K) with every temperature 1; None where they all are


def probabilities(
    judge: Ensemble,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    tta: str = "none",
    precision: str | int = "32-true",
) -> Tensor:
    """Probabilities (n, K) in float32 on the CPU of the faces `images[rows]`, computed where the judge is."""
    judge.eval()
    return asked(lambda pixels: judge.probabilities(pixels, tta), images, rows, judge.device, precision)


@torch.inference_mode()
def asked(
    ask: Callable[[Tensor], Tensor],
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    device: torch.device,
    precision: str | int = "32-true",
) -> Tensor:
    """What `ask` says of the raw faces `images[rows]`, (n, ...) in float32 on the CPU, some faces at a time."""
    pixels, parts = torch.from_numpy(images), []
    with torch.autocast(device.type, torch.bfloat16, enabled=str(precision).startswith("bf16")):
        for start in range(0, len(rows), BATCH):
            batch = pixels[torch.from_numpy(rows[start : start + BATCH])].to(device)
            parts.append(ask(batch).float().cpu())
    return torch.cat(parts)


def score(
    probabilities: Tensor,
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    votes: NDArray[np.float32] | None = None,
    untempered: Tensor | None = None,
) -> dict[str, Any]:
    """Accuracy, macro F1, each class's precision, recall, F1 and calibration as [figure, lower, upper], 95 % intervals.

    Accuracy, precision and recall are proportions: Wilson's interval (1927). The F1s have none of that kind: percentile
    bootstrap, drawing confusion matrices of as many faces from the one that was seen. Negative log-likelihood and Brier
    score are means: normal interval. The calibration error and the area under the risk-coverage curve (aurc) stand
    alone: resampling only ever adds to the first.

    Given shares of taggers' votes (N, K), of which `labels` are the majority, besides the cross-entropy to them, and
    their own entropy, the least that it can be. Given what the probabilities would be with temperature 1, besides
    their calibration.
    """
    truth = torch.from_numpy(labels)
    confusion = confusion_matrix(truth, probabilities.argmax(-1), len(classes))
    scores = class_scores(confusion)
    resampled = class_scores(_resampled(confusion))
    true, predicted = confusion.sum(1), confusion.sum(0)
    return {
        "n": len(labels),
        "accuracy": wilson(scores.accuracy, confusion.sum()),
        "macro_f1": _percentile(scores.macro_f1, resampled.macro_f1),
        **_calibration(probabilities, truth),
        **({} if untempered is None else {"uncalibrated": _calibration(untempered, truth)}),
        "selective": _selective(probabilities, truth),
        "classes": {
            name: {
                "n": int(true[i]),
                "precision": wilson(scores.precision[i], predicted[i]),
                "recall": wilson(scores.recall[i], true[i]),
                "f1": _percentile(scores.f1[i], resampled.f1[:, i]),
            }
            for i, name in enumerate(classes)
        },
        "confusion": confusion.tolist(),
        **({} if votes is None else {"votes": _against(torch.from_numpy(votes), probabilities)}),
    }


def score_rows(
    judge: Ensemble,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    training_rows: NDArray[np.int64],
    tta: Sequence[str] = ("none",),
    precision: str | int = "32-true",
    votes: NDArray[np.float32] | None = None,
) -> dict[str, Judged]:
    """`rows` judged in each of the named views: scores of all and of the clean ones, and what was asked.

    `votes`: shares, of all rows.
    """
    for member in judge.eval().members:
        member.tune(channels_last=True)  # on a processor 1.2 to 1.8 times as fast
    answers = asked(
        lambda pixels: judge.with_and_without_temperature(pixels, tta), images, rows, judge.device, precision
    )
    clean = ~stand_in(images, rows, training_rows)

    def of(chosen: NDArray[np.bool_], found: Tensor, untempered: Tensor | None) -> dict[str, Any]:
        shares = None if votes is None else votes[rows[chosen]]
        before = None if untempered is None else untempered[chosen]
        return score(found[chosen], labels[rows[chosen]], judge.classes, shares, before)

    judged = {}
    for name, both in zip(tta, answers.unbind(1), strict=True):
        found, plain = both.unbind(1)
        untempered = plain if set(judge.temperatures) != {1.0} else None
        scores = {
            "tta": name,
            "precision": "bf16-mixed" if str(precision).startswith("bf16") else "32-true",
            "all": of(np.ones_like(clean), found, untempered),
            "clean": of(clean, found, untempered),
        }
        judged[name] = Judged(scores, rows, labels[rows], found.argmax(-1).numpy(), clean, found, untempered)
    return judged


def stand_in(images: NDArray[np.uint8], rows: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For each of `rows`, whether its very pixels stand among `others`."""
    seen = {fingerprint(images[row]) for row in others}
    return np.array([fingerprint(images[row]) in seen for row in rows], bool)


def accuracy_and_f1(predicted: Tensor, labels: Tensor, classes: int) -> dict[str, list[float]]:
    """Accuracy and macro F1 of predictions (N,) with their intervals, as `score` gives them."""
    confusion = confusion_matrix(labels, predicted, classes)
    scores = class_scores(confusion)
    return {
        "accuracy": wilson(scores.accuracy, confusion.sum()),
        "macro_f1": _percentile(scores.macro_f1, class_scores(_resampled(confusion)).macro_f1),
    }


def _calibration(probabilities: Tensor, truth: Tensor) -> dict[str, Any]:
    return {
        "ece": float(expected_calibration_error(probabilities, truth)) if len(truth) else None,
        "nll": mean_with_interval(negative_log_likelihood(probabilities, truth)),
        "brier": mean_with_interval(brier(probabilities, truth)),
    }


def _selective(probabilities: Tensor, truth: Tensor) -> dict[str, Any]:
    risk, n = risk_by_coverage(probabilities, truth), len(truth)
    faces = {str(coverage): answered(coverage, n) for coverage in COVERAGES}
    accuracy = {key: wilson(1 - risk[k - 1] if k else risk.sum(), torch.tensor(k)) for key, k in faces.items()}
    return {"aurc": float(risk.mean()) if n else None, "accuracy": accuracy}


def _against(shares: Tensor, probabilities: Tensor) -> dict[str, Any]:
    return {
        "cross_entropy": mean_with_interval(cross_entropy_to(shares, probabilities)),
        "entropy": mean_with_interval(torch.special.entr(shares.double()).sum(-1)),
    }
