"""Runs against the first run, and recipes against the first recipe, on the faces that all of them judged."""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from emotion.errors import UserError
from emotion.metrics import statistics
from emotion.metrics.classification import class_scores, confusion_matrix
from emotion.metrics.statistics import Paired, Recipes, Tested
from emotion.records.run_record import Predictions, Run, read_predictions


class Entry(NamedTuple):
    """A run under the name that it has here, its scores, and how it differs from the first run."""

    name: str
    run: Run
    scores: dict[str, Any]
    pair: Paired | str  # or why there is none


class Recipe(NamedTuple):
    """The runs that differ in their seed alone, each one's scores, and how their recipe differs from the first."""

    name: str
    runs: Sequence[Run]
    scores: Sequence[dict[str, Any]]
    test: Recipes | str  # or why there is none


def pairs(first: Run, others: Sequence[Run], tta: str, rows: str) -> list[Paired | str]:
    """How two trained networks differ, of each other run, or why that is not tested; p-values corrected together."""
    return _corrected([_pair(first, other, tta, rows) for other in others])


def recipes(first: Sequence[Run], others: Sequence[Sequence[Run]], tta: str, rows: str) -> list[Recipes | str]:
    """How two recipes differ over their seeds, of each other's runs, or why that is not tested; p-values likewise."""
    return _corrected([_recipes(first, other, tta, rows) for other in others])


def _corrected(found: list[Tested | str]) -> list[Tested | str]:
    tested = iter(statistics.corrected([one for one in found if not isinstance(one, str)]))
    return [one if isinstance(one, str) else next(tested) for one in found]


def _pair(first: Run, second: Run, tta: str, rows: str) -> Paired | str:
    judged = _on_shared_faces([first, second], tta, rows)
    if isinstance(judged, str):
        return judged
    one, other = judged
    return statistics.compare(one.labels, one.predicted, other.predicted, _classes(first))


def _recipes(first: Sequence[Run], second: Sequence[Run], tta: str, rows: str) -> Recipes | str:
    if min(len(first), len(second)) < 2:
        return "one seed tells nothing of chance"
    judged = _on_shared_faces([*first, *second], tta, rows)
    if isinstance(judged, str):
        return judged
    figures = [_figures(one, _classes(first[0])) for one in judged]
    accuracy, macro_f1 = (
        statistics.welch(reached[: len(first)], reached[len(first) :]) for reached in zip(*figures, strict=True)
    )
    return Recipes(len(judged[0].rows), len(first), len(second), accuracy, macro_f1)


def _on_shared_faces(runs: Sequence[Run], tta: str, rows: str) -> list[Predictions] | str:
    """What each run made of the faces that all judged, in one order; or why nothing can be held against the first."""
    first, *others = runs
    labels = list(first.record["config"]["labels"].items())
    if any(run.record["data"]["digest"] != first.record["data"]["digest"] for run in others):
        return "it was judged on other data"
    if any(list(run.record["config"]["labels"].items()) != labels for run in others):
        return "it tells other classes apart"
    judged = [read_predictions(run, tta) for run in runs]
    if rows == "clean":
        judged = [one.of(one.clean) for one in judged]
    shared = reduce(np.intersect1d, [one.rows for one in judged])
    if len(shared) == 0:
        return "it was judged on other faces"
    aligned = [_in_order_of(shared, one) for one in judged]
    for run, one in zip(runs, aligned, strict=True):
        if (one.labels != aligned[0].labels).any():
            raise UserError(f"{first.folder} and {run.folder} give the same faces other labels; one is damaged.")
    return aligned


def _in_order_of(rows: NDArray[np.integer], judged: Predictions) -> Predictions:
    _, _, at = np.intersect1d(rows, judged.rows, return_indices=True)
    return Predictions(rows, judged.labels[at], judged.clean[at], judged.predicted[at])


def _figures(judged: Predictions, classes: int) -> tuple[float, float]:
    """Accuracy and macro F1."""
    truth, predicted = (torch.from_numpy(column.astype(np.int64)) for column in (judged.labels, judged.predicted))
    scores = class_scores(confusion_matrix(truth, predicted, classes))
    return float(scores.accuracy), float(scores.macro_f1)


def _classes(run: Run) -> int:
    return len(run.record["config"]["labels"])
