"""Scores for people: figures as text, tables, pictures and JSON beside a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from numpy.typing import NDArray

from emotion.evaluation.score import Judged
from emotion.io.atomic import write_text
from emotion.loggers.csv_logger import read_metrics
from emotion.loggers.run_logger import Tracker
from emotion.metrics.calibration import reliability
from emotion.metrics.selective import risk_by_coverage
from emotion.reporting import figures
from emotion.reporting.tables import Scores
from emotion.reporting.text import of_uncorrupted, share, spread

WORST = 32  # mistakes on a sheet


def save_scores(folder: Path, name: str, scores: Scores, classes: tuple[str, ...], title: str) -> list[Path]:
    """`name`.json and `name`_confusion.png in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    table, picture = folder / f"{name}.json", folder / f"{name}_confusion.png"
    write_text(table, json.dumps(scores, indent=2) + "\n")
    accuracy = f"accuracy {spread(scores['all']['accuracy'])} %, macro F1 {spread(scores['all']['macro_f1'])} %"
    figures.save(
        figures.confusion_matrix(np.array(scores["all"]["confusion"]), classes, f"{title}\n{accuracy}"), picture
    )
    return [table, picture]


def save_pictures(
    folder: Path, name: str, judged: Judged, images: NDArray[np.uint8], classes: tuple[str, ...], title: str
) -> list[Path]:
    """`name`_reliability.png, and `name`_mistakes.png where there is one, of all the rows that were judged."""
    truth, found = torch.from_numpy(judged.labels), judged.scores["all"]
    before = None if judged.untempered is None else reliability(judged.untempered, truth)
    right = 1 - risk_by_coverage(judged.probabilities, truth).numpy()
    was = f" (without temperature {share(found['uncalibrated']['ece'])} %)" if before else ""
    said = f"{title}\nECE {share(found['ece'])} %{was}, AURC {share(found['selective']['aurc'])} %"
    picture = folder / f"{name}_reliability.png"
    figures.save(figures.reliability(reliability(judged.probabilities, truth), before, right, said), picture)
    if not (worst := _worst(judged)).size:
        return [picture]
    captions = [
        f"{classes[judged.labels[i]]} → {classes[judged.predicted[i]]}\n"
        f"{100 * judged.probabilities[i].max():.1f} %, row {judged.rows[i]}"
        for i in worst
    ]
    title += f"\nthe {len(worst)} surest of {(judged.predicted != judged.labels).sum():,} mistakes: label → prediction"
    sheet = folder / f"{name}_mistakes.png"
    figures.save(figures.faces(images[judged.rows[worst]], captions, [False] * len(worst), title=title), sheet)
    return [picture, sheet]


def save_robustness(folder: Path, name: str, found: Mapping[str, Any], title: str) -> Path:
    """`name`_robustness.png."""
    path = folder / f"{name}_robustness.png"
    said = f"{title}\nmean {of_uncorrupted(found)}"
    figures.save(figures.robustness(found["accuracy"], found["uncorrupted_accuracy"][0], said), path)
    return path


def _worst(judged: Judged) -> NDArray[np.int64]:
    """Places (at most WORST,) of the faces that were taken for another class, the surest first."""
    wrong = np.flatnonzero(judged.predicted != judged.labels)
    confidence = judged.probabilities.amax(-1).numpy()
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:WORST]


def save_history(run_dir: Path, best_epoch: int) -> list[Path]:
    """history.png, drawn from the run's metrics.csv where it has one."""
    if not (run_dir / "metrics.csv").is_file():
        return []
    figures.save(figures.history(read_metrics(run_dir / "metrics.csv"), best_epoch), run_dir / "history.png")
    return [run_dir / "history.png"]


def save_label_map(run_dir: Path, classes: tuple[str, ...]) -> Path:
    """label_map.json: class name to the network's output."""
    path = run_dir / "label_map.json"
    write_text(path, json.dumps({name: index for index, name in enumerate(classes)}, indent=2) + "\n")
    return path


def log_hyperparameters(loggers: Sequence[Logger], settings: Mapping[str, Any], by_views: Mapping[str, Scores]) -> None:
    """The run's settings with its final scores, as TensorBoard's HPARAMS page compares them; trackers have these."""
    chosen = {name: settings[name] for name in ("model", "loss", "optimizer", "scheduler", "batch_size", "seed")}
    scores = {
        f"test/{name}/{tta}": found["all"][name][0]
        for tta, found in by_views.items()
        for name in ("accuracy", "macro_f1")
    }
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(chosen, scores)
            logger.save()
        elif isinstance(logger, Tracker):
            logger.log_scores(scores)
