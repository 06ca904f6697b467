"""Evaluate the best epoch of a run: fit its temperature on validation, score it on test, write the figures."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from emotion.checkpoints.ensemble import Ensemble
from emotion.checkpoints.load import load_checkpoint, set_temperature
from emotion.checkpoints.locate import BEST_CHECKPOINT
from emotion.config.instantiate import plugins_argument
from emotion.data.datamodule import EmotionDataModule
from emotion.data.transforms.tta import mean_probabilities
from emotion.errors import counted
from emotion.evaluation.score import batched_inference, score_rows
from emotion.metrics.calibration import expected_calibration_error, fit_temperature, negative_log_likelihood
from emotion.records.predictions import write_predictions
from emotion.records.run_record import RunRecord
from emotion.reporting import artifacts, tables, text
from emotion.runtime.announce import announce

NEEDED_WITH_DATA = ("model", "data", "split")
"""Parts of a run's config that are built again to evaluate its checkpoint on its data."""


def calibrate(
    run_dir: Path, data: EmotionDataModule, device: torch.device, precision: str | int = "32-true"
) -> dict[str, Any] | None:
    """Fit the temperature of the best checkpoint on the validation rows and store it in the checkpoint.

    The logits are not divided by a stored temperature, so fitting again gives the same result. Returns the temperature,
    and NLL and ECE on validation before and after; None if the run has no best checkpoint.
    """
    path = run_dir / BEST_CHECKPOINT
    if not path.is_file():
        return None
    classifier, rows = load_checkpoint(path).classifier.to(device), data.split.val
    classifier.optimize_for_device(channels_last=True)
    announce(f"fitting the temperature on {counted(len(rows), 'validation face')}")
    logits = batched_inference(
        lambda pixels: classifier.logits(pixels)["none"].squeeze(0), data.faces.images, rows, device, precision, "faces"
    )
    labels = torch.from_numpy(data.labels[rows])
    temperature = fit_temperature(logits, labels)
    set_temperature(path, temperature)
    before_after = [mean_probabilities(logits[None], t) for t in (1.0, temperature)]
    validation = {
        "nll": [float(negative_log_likelihood(probabilities, labels).mean()) for probabilities in before_after],
        "ece": [float(expected_calibration_error(probabilities, labels)) for probabilities in before_after],
    }
    return {"temperature": temperature, "validation": validation, "n": len(rows)}


def evaluate_on_test(record: RunRecord, data: EmotionDataModule, trainer: Trainer) -> dict[str, Any]:
    """Score the best epoch on test with and without TTA; print accuracy and macro F1, and write all else.

    With `verbose` every table of scores is printed.
    """
    run_dir, best = Path(record.config["run_dir"]), record.best
    ensemble = Ensemble([load_checkpoint(run_dir)]).to(trainer.strategy.root_device)
    tta = tuple(dict.fromkeys(("none", record.config["tta"])))
    announce(f"scoring {counted(len(data.split.test), 'test face')}, tta={' and '.join(tta)}")
    results = score_rows(
        ensemble, data.faces.images, data.labels, data.split.test, data.split.train, tta, trainer.precision, data.votes
    )
    scores = {name: result.scores for name, result in results.items()}
    synthetic = " (SYNTHETIC faces)" if record.is_synthetic else ""
    title = (
        f"{record.title}: {record.network}, {text.short_source(record.data['source'])}, "
        f"{counted(len(data.split.test), 'face')} of test{synthetic}, "
        f"epoch {best['epoch']}, chosen by {best['metric']} {best['score']:.4f}, "
        f"temperature {ensemble.temperatures[0]:.3g}"
    )
    if record.config.get("verbose"):
        tables.print_scores(title, scores, verbose=True)
    artifacts.save_scores(run_dir, "test", scores["none"], data.classes, title)
    artifacts.save_figures(run_dir, "test", results["none"], data.faces.images, data.classes, title)
    artifacts.save_history(run_dir, best["epoch"], f"{record.title}: {record.network}")
    artifacts.save_label_map(run_dir, data.classes)
    write_predictions(run_dir, results)
    artifacts.log_hyperparameters(trainer.loggers, record.config, scores)
    print(summary(run_dir, record, scores["none"]["all"]), flush=True)
    return {"test": scores}


def summary(run_dir: Path, record: RunRecord, scores: Mapping[str, Any]) -> str:
    """Return the end of a training in five lines: the scores, the folder and what to do next."""
    parts = (text.format_interval(scores[key]).partition(" [") for key in ("accuracy", "macro_f1"))
    accuracy, macro_f1 = (f"{value} %{bracket}{bounds}" for value, bracket, bounds in parts)
    run, config = shlex.quote(str(run_dir)), record.config
    of_network, of_data = (plugins_argument(*(config[key] for key in keys)) for keys in (("model",), NEEDED_WITH_DATA))
    return (
        f"test{' (SYNTHETIC)' * record.is_synthetic}: accuracy {accuracy}, macro F1 {macro_f1}\n"
        f"scores, figures and checkpoints: {run_dir}\n"
        f"next: python -m emotion.evaluate {of_data}{run}\n"
        f"      python -m emotion.explain {of_data}{run}\n"
        f"      python -m emotion.predict {of_network}photo.jpg {shlex.quote(f'checkpoint={run_dir}')}"
    )
