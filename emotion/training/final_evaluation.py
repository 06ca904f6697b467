"""What becomes of a run's best epoch: its temperature, its scores on test, its pictures."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from emotion.checkpoints.ensemble import Ensemble
from emotion.checkpoints.load import load_checkpoint, set_temperature
from emotion.checkpoints.locate import BEST_CHECKPOINT
from emotion.data.datamodule import EmotionDataModule
from emotion.data.transforms.tta import averaged
from emotion.evaluation.score import asked, score_rows
from emotion.metrics.calibration import expected_calibration_error, fitted_temperature, negative_log_likelihood
from emotion.records import run_record
from emotion.reporting import artifacts, tables

Settings = dict[str, Any]


def calibrate(
    run_dir: Path, data: EmotionDataModule, device: torch.device, precision: str | int = "32-true"
) -> Settings | None:
    """Fit the best checkpoint's temperature on the validation rows, store it there, and say what it does to them.

    Its logits are taken as they are, whatever temperature it holds: a second time finds the same. None where the run
    saved no best checkpoint, as without that callback.
    """
    path = run_dir / BEST_CHECKPOINT
    if not path.is_file():
        return None
    classifier, rows = load_checkpoint(path).classifier.to(device), data.split.val
    classifier.tune(channels_last=True)
    logits = asked(lambda pixels: classifier.logits(pixels).squeeze(0), data.faces.images, rows, device, precision)
    labels = torch.from_numpy(data.labels[rows])
    temperature = fitted_temperature(logits, labels)
    set_temperature(path, temperature)
    found = [averaged(logits[None], t) for t in (1.0, temperature)]
    validation = {
        "nll": [float(negative_log_likelihood(one, labels).mean()) for one in found],
        "ece": [float(expected_calibration_error(one, labels)) for one in found],
    }
    return {"temperature": temperature, "validation": validation, "n": len(rows)}


def score(record: Settings, data: EmotionDataModule, trainer: Trainer) -> Settings:
    """Score the best epoch on test, plainly and with the configured views; print and draw what there is to see."""
    settings = record["config"]
    run_dir, best = Path(settings["run_dir"]), record["best"]
    judge = Ensemble([load_checkpoint(run_dir)]).to(trainer.strategy.root_device)
    tta = tuple(dict.fromkeys(("none", settings["tta"])))
    print(f"scoring {len(data.split.test):,} test faces, tta={' and '.join(tta)} ...", flush=True)
    judged = score_rows(
        judge, data.faces.images, data.labels, data.split.test, data.split.train, tta, trainer.precision, data.votes
    )
    scores = {tta: found.scores for tta, found in judged.items()}
    stand_in = " (SYNTHETIC faces)" if record["data"]["stand_in"] else ""
    title = f"test{stand_in}: epoch {best['epoch'] + 1}, chosen by {best['metric']} {best['score']:.4f}"
    title += f", temperature {judge.temperatures[0]:.3g}"
    tables.print_scores(title, scores)
    written = artifacts.save_scores(run_dir, "test", scores["none"], data.classes, title)
    written += artifacts.save_pictures(run_dir, "test", judged["none"], data.faces.images, data.classes, title)
    written += [*artifacts.save_history(run_dir, best["epoch"]), artifacts.save_label_map(run_dir, data.classes)]
    written += [run_record.write_predictions(run_dir, judged)]
    artifacts.log_hyperparameters(trainer.loggers, settings, scores)
    print("\n".join(f"wrote {path}" for path in [*written, run_dir / "record.json"]))
    return {"test": scores}
