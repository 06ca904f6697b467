"""Compare runs with the first run, and recipes with the first recipe, on the test faces that all of them share."""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch

from emotion.errors import UserError
from emotion.evaluation.score import accuracy_and_f1
from emotion.metrics import statistics
from emotion.metrics.statistics import Comparison, PairedComparison, RecipeComparison
from emotion.records.predictions import Predictions, read_predictions
from emotion.records.run_folder import Run


class RunRow(NamedTuple):
    """A run in a comparison: its test scores, and its difference to the first run or why it is not tested."""

    name: str
    run: Run
    scores: dict[str, Any]
    pair: PairedComparison | str


class Recipe(NamedTuple):
    """Runs that differ only in their seed, and the difference to the first recipe or why it is not tested."""

    name: str
    runs: Sequence[Run]
    scores: Sequence[dict[str, Any]]
    test: RecipeComparison | str


def pairs(first: Run, others: Sequence[Run], tta: str, rows: str) -> list[PairedComparison | str]:
    """Test each other run against the first, or return why not; p-values are corrected for all tests together."""
    return _corrected([_compare_runs(first, other, tta, rows) for other in others])


def recipes(first: Sequence[Run], others: Sequence[Sequence[Run]], tta: str, rows: str) -> list[RecipeComparison | str]:
    """Test each other recipe against the first over their seeds, as `pairs` does with runs."""
    return _corrected([_compare_recipes(first, other, tta, rows) for other in others])


def pool(folds: Sequence[Run], tta: str, rows: str) -> dict[str, Any]:
    """Return the number of faces, and accuracy and macro F1 as in `score`, over the test faces of all folds."""
    predictions = [read_predictions(run, tta, rows) for run in folds]
    n = sum(len(one.labels) for one in predictions)
    return {"n": n, **_accuracy_and_f1(predictions, len(folds[0].record.labels))}


def _corrected(results: list[Comparison | str]) -> list[Comparison | str]:
    tested = iter(statistics.holm_corrected([result for result in results if not isinstance(result, str)]))
    return [result if isinstance(result, str) else next(tested) for result in results]


def _compare_runs(first: Run, second: Run, tta: str, rows: str) -> PairedComparison | str:
    predictions = _on_shared_faces([first, second], tta, rows)
    if isinstance(predictions, str):
        return predictions
    one, other = predictions
    return statistics.compare_predictions(one.labels, one.predicted, other.predicted, len(first.record.labels))


def _compare_recipes(first: Sequence[Run], second: Sequence[Run], tta: str, rows: str) -> RecipeComparison | str:
    if min(len(first), len(second)) < 2:
        return "a single seed does not show the variation between seeds"
    predictions = _on_shared_faces([*first, *second], tta, rows)
    if isinstance(predictions, str):
        return predictions
    scores = [_accuracy_and_f1([one], len(first[0].record.labels)) for one in predictions]
    accuracy, macro_f1 = (
        statistics.welch(values[: len(first)], values[len(first) :])
        for values in ([one[name][0] for one in scores] for name in ("accuracy", "macro_f1"))
    )
    return RecipeComparison(len(predictions[0].rows), len(first), len(second), accuracy, macro_f1)


def _on_shared_faces(runs: Sequence[Run], tta: str, rows: str) -> list[Predictions] | str:
    """Return each run's predictions on the faces that all runs share, in one order; or why they cannot be compared."""
    first, *others = runs
    labels = list(first.record.labels.items())
    if any(run.record.data["digest"] != first.record.data["digest"] for run in others):
        return "it was evaluated on other data"
    if any(list(run.record.labels.items()) != labels for run in others):
        return "it has other classes"
    predictions = [read_predictions(run, tta, rows) for run in runs]
    shared = reduce(np.intersect1d, [one.rows for one in predictions])
    if len(shared) == 0:
        return "it was evaluated on other faces"
    aligned = [one.select(np.intersect1d(shared, one.rows, return_indices=True)[2]) for one in predictions]
    for run, one in zip(runs, aligned, strict=True):
        if (one.labels != aligned[0].labels).any():
            raise UserError(f"{first.folder} and {run.folder} label the same faces differently; one is damaged.")
    return aligned


def _accuracy_and_f1(predictions: Sequence[Predictions], num_classes: int) -> dict[str, list[float]]:
    labels, predicted = (
        torch.from_numpy(np.concatenate(columns).astype(np.int64))
        for columns in zip(*((one.labels, one.predicted) for one in predictions), strict=True)
    )
    return accuracy_and_f1(predicted, labels, num_classes)
