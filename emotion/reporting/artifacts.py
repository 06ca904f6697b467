"""Files of scores and figures that training and evaluate write."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from numpy.typing import NDArray

from emotion.config.instantiate import network_name
from emotion.evaluation.score import EvaluationResult
from emotion.io.atomic import make_folder, write_json
from emotion.loggers.csv_logger import read_metrics
from emotion.loggers.run_logger import RunLogger
from emotion.metrics.calibration import reliability
from emotion.metrics.selective import risk_by_coverage
from emotion.reporting import figures
from emotion.reporting.tables import Scores
from emotion.reporting.text import format_interval, format_percent, format_robustness

MAX_MISTAKES = 32


def save_scores(
    folder: Path, name: str, scores: Scores, classes: tuple[str, ...], title: str, *, vector: bool = False
) -> None:
    """Write `name`.json and `name`_confusion.png, with `vector` also .pdf."""
    make_folder(folder)
    json_path, figure_path = folder / f"{name}.json", folder / f"{name}_confusion.png"
    write_json(json_path, scores)
    accuracy, macro_f1 = (format_interval(scores["all"][key]) for key in ("accuracy", "macro_f1"))
    title = f"{title}\naccuracy {accuracy} %, macro F1 {macro_f1} %"
    confusion = np.array(scores["all"]["confusion"])
    figures.save(figures.confusion_matrix(confusion, classes, title), figure_path, vector=vector)


def save_figures(
    folder: Path,
    name: str,
    result: EvaluationResult,
    images: NDArray[np.uint8],
    classes: tuple[str, ...],
    title: str,
    *,
    vector: bool = False,
) -> list[Path]:
    """Write `name`_reliability.png and `name`_mistakes.png of all evaluated rows.

    With `vector` the former also as PDF. Without mistakes, a previous `name`_mistakes.png is deleted.
    """
    labels, scores = torch.from_numpy(result.labels), result.scores["all"]
    uncalibrated = None if result.uncalibrated is None else reliability(result.uncalibrated, labels)
    before = f" (without temperature {format_percent(scores['uncalibrated']['ece'])} %)" if uncalibrated else ""
    ece, aurc = format_percent(scores["ece"]), format_percent(scores["selective"]["aurc"])
    reliability_path = folder / f"{name}_reliability.png"
    figure = figures.reliability(
        reliability(result.probabilities, labels),
        uncalibrated,
        1 - risk_by_coverage(result.probabilities, labels).numpy(),
        f"{title}\nECE {ece} %{before}, AURC {aurc} %",
    )
    figures.save(figure, reliability_path, vector=vector)
    wrong = np.flatnonzero(result.predicted != result.labels)
    mistakes_path = folder / f"{name}_mistakes.png"
    if not wrong.size:
        mistakes_path.unlink(missing_ok=True)
        return [reliability_path]
    confidence = result.probabilities.amax(-1).numpy()
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:MAX_MISTAKES]
    captions = [
        f"{classes[result.labels[i]]} → {classes[result.predicted[i]]}\n"
        f"{100 * confidence[i]:.1f} %, row {result.rows[i]}"
        for i in shown
    ]
    title += f"\nthe {len(shown)} most confident of {len(wrong):,} mistakes: label → prediction"
    sheet = figures.faces(images[result.rows[shown]], captions, [False] * len(shown), title=title)
    figures.save(sheet, mistakes_path)
    return [reliability_path, mistakes_path]


def save_robustness(folder: Path, name: str, robustness: Mapping[str, Any], title: str) -> None:
    """Write `name`.png and .pdf."""
    title = f"{title}\nmean {format_robustness(robustness)}"
    figure = figures.robustness(robustness["accuracy"], robustness["uncorrupted_accuracy"][0], title)
    figures.save(figure, folder / f"{name}.png", vector=True)


def save_history(run_dir: Path, best_epoch: int, title: str) -> None:
    """Write history.png if the run has a metrics.csv."""
    if (run_dir / "metrics.csv").is_file():
        figures.save(figures.history(read_metrics(run_dir / "metrics.csv"), best_epoch, title), run_dir / "history.png")


def save_label_map(run_dir: Path, classes: tuple[str, ...]) -> None:
    """Write label_map.json: class name to output index."""
    write_json(run_dir / "label_map.json", {name: index for index, name in enumerate(classes)})


def log_hyperparameters(
    loggers: Sequence[Logger], settings: Mapping[str, Any], scores_by_tta: Mapping[str, Scores]
) -> None:
    """Log the final test scores: to TensorBoard with the main settings, to trackers unchanged.

    TensorBoard sorts settings by name and shows the first five: those in which runs usually differ.
    """
    hparams = {name: settings[name] for name in ("batch_size", "name", "seed")} | {
        "lr": settings["optimizer"]["lr"],
        "model": network_name(settings["model"]),
        "setting": {name: settings[name] for name in ("optimizer", "scheduler", "loss", "model")},
    }
    scores = {
        f"test/{name}/{tta}": scores["all"][name][0]
        for tta, scores in scores_by_tta.items()
        for name in ("accuracy", "macro_f1")
    }
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(hparams, scores)
            logger.save()
        elif isinstance(logger, RunLogger):
            logger.log_scores(scores)
