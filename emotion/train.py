"""Train a classifier, score its best epoch once on test, write the run record: python -m emotion.train model=NAME."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from emotion.cli import name_jobs_by_difference, near, resume_in_place, verb
from emotion.errors import UserError

if TYPE_CHECKING:  # what a verb needs is imported when it runs: --help and a mistyped override are answered at once
    from lightning.pytorch import Trainer

    from emotion.classifier import EmotionClassifier
    from emotion.data.datamodule import EmotionDataModule

Settings = dict[str, Any]


def train(cfg: DictConfig, run_dir: Path) -> float:
    """Fit, score the best epoch on test, write the run record; the best monitored score (sweeps maximise it).

    Raises:
        UserError: something given is missing or wrong.
        Stopped: Ctrl-C or SIGTERM; a checkpoint to resume from is written.
    """
    started = time.perf_counter()
    import lightning as L

    from emotion import assembly, best_epoch, run_records

    settings = assembly.resolve(cfg, run_dir)
    former = run_records.read_record(run_dir)
    fitted = _goes_no_further(former, settings)
    L.seed_everything(settings["seed"], verbose=False)
    data, source = assembly.make_data(settings)
    classifier = assembly.make_classifier(settings, data)
    loaded = None if settings["resume"] else assembly.load_weights(classifier, settings)
    if settings.get("preflight", {}).get("run"):
        from emotion.preflight import preflight

        return preflight(classifier, data, settings, run_dir)
    compiled = assembly.tune(classifier, settings, short=source["stand_in"])
    taught = assembly.teach(classifier, settings)
    if former:
        _check_teachers(former.get("distillation"), taught)
    trainer = assembly.make_trainer(settings, limited=source["stand_in"])
    record = {
        "command": run_records.command(),
        "commit": run_records.commit(),
        "versions": run_records.versions(),
        "machine": _machine(settings, compiled=compiled),
        "config": settings,
        "data": source,
        "split": {part: len(rows) for part, rows in data.split._asdict().items()},
        "distillation": taught,
        "parameters": sum(parameter.numel() for parameter in classifier.net.parameters()),
        "weights": loaded._asdict() | {"loaded": len(loaded.loaded)} if loaded else None,
    }
    if former:
        again = {key: record[key] for key in ("command", "commit")}
        record |= {key: former.get(key) for key in (*again, "weights")} | {
            "resumed": [*former.get("resumed", []), again]
        }
    if trainer.is_global_zero:
        _announce(record)
        run_dir.mkdir(parents=True, exist_ok=True)
        data.save_rows(run_dir / "rows.npz")
        run_records.write_record(run_dir, former | {"resumed": record["resumed"]} if former else record)
    if former and fitted:
        record |= {key: former[key] for key in ("epochs", "fit_seconds", "epoch_seconds", "best") if key in former}
    else:
        record |= _fit(trainer, classifier, data, settings)
    if trainer.is_global_zero:
        run_records.write_record(
            run_dir, record | {"scores": None}
        )  # a run stopped while it is scored resumes from here
        device = trainer.strategy.root_device
        record["calibration"] = best_epoch.calibrate(run_dir, data, device, trainer.precision)
        record["scores"] = best_epoch.score(record, data, trainer)
        if not former:
            record["wall_seconds"] = round(time.perf_counter() - started, 1)  # all but the start of Python and Hydra
        run_records.write_record(run_dir, record)
    return float(record["best"]["score"])


def _goes_no_further(former: Settings | None, settings: Settings) -> bool:
    """Whether a run that is resumed has all its epochs, and only its scores are missing.

    Raises:
        UserError: nothing is missing, or its learning rates are laid out for another number of epochs.
    """
    if former is None:
        return False
    before, now = (config["trainer"]["max_epochs"] for config in (former["config"], settings))
    if former.get("scores") and before >= now:
        on = "raise trainer.max_epochs"
        if settings["scheduler"].get("interval") == "step":  # laid out for these epochs
            on = f"start another run with model.weights={settings['run_dir']}"
        raise UserError(f"{settings['run_dir']} is finished after {former['epochs']} epochs; to train on, {on}.")
    if settings["scheduler"].get("interval") == "step" and before != now:
        raise UserError(
            f"{settings['run_dir']}: its learning rates are laid out for {before} epochs, not for {now}; "
            f"start another run."
        )
    return "best" in former and before >= now


def _check_teachers(began: Settings | None, now: Settings | None) -> None:
    """Raises UserError where a run would go on with other teachers than it began with, wherever they lie by now."""
    before, after = (taught["teachers"] if taught else [] for taught in (began, now))
    if [one["sha256"] for one in before] != [one["sha256"] for one in after]:
        said = (", ".join(f"{one['path']} (epoch {one['epoch'] + 1})" for one in some) for some in (after, before))
        raise UserError(
            "distillation.teacher: found {}; the run began with {}, and not with the same file. "
            "Bring that back, or start a new run.".format(*(names or "none" for names in said))
        )


def _machine(settings: Settings, *, compiled: bool) -> Settings:
    from emotion import machine

    return {
        "device": machine.description(settings["trainer"]["accelerator"]),
        "precision": settings["trainer"]["precision"],
        "channels_last": settings["channels_last"],
        "compiled": compiled,
    }


def _announce(record: Settings) -> None:
    settings, split, size = record["config"], record["split"], record["config"]["input"]["size"]
    name = settings["model"].get("backbone") or settings["model"]["_target_"].rsplit(".", 1)[-1]
    compiled = ", compiled (the first batches wait for it)" if record["machine"]["compiled"] else ""
    dropped = record["data"].get("dropped")
    left_out = f"; left out by {dropped['file']}: {sum(dropped['rows'].values()):,}" if dropped else ""
    print(
        f"{name}, {record['parameters']:,} parameters; {len(settings['labels'])} classes; faces {size}x{size}"
        f"x{settings['input']['channels']}\n"
        f"{record['data']['source']}: {split['train']:,} train, {split['val']:,} validate, {split['test']:,} test"
        f"{left_out}\n"
        f"{record['machine']['device']}; {record['machine']['precision']}{compiled}\n"
        f"run: {settings['run_dir']}",
        flush=True,
    )


def _fit(
    trainer: "Trainer", classifier: "EmotionClassifier", data: "EmotionDataModule", settings: Settings
) -> Settings:
    """Train from the start or from the run's last checkpoint; epochs, seconds and the best epoch, for the record."""
    from lightning.pytorch.callbacks import ModelCheckpoint, Timer

    from emotion import checkpoints
    from emotion.callbacks.epoch_table import EpochTable

    run_dir = Path(settings["run_dir"])
    last = run_dir / checkpoints.LAST
    if settings["resume"] and not last.is_file():
        raise UserError(f"{run_dir} has no {checkpoints.LAST}: it stopped before its first checkpoint. Start it anew.")
    if settings["resume"]:
        checkpoints.check_classes(last, checkpoints.read(last)["hyper_parameters"]["classes"], data.classes)
    trainer.fit(classifier, datamodule=data, ckpt_path=last if settings["resume"] else None, weights_only=True)
    timer = next(callback for callback in trainer.callbacks if isinstance(callback, Timer))  # type: ignore[attr-defined]
    fitted: Settings = {"epochs": trainer.current_epoch, "fit_seconds": round(timer.time_elapsed("train"), 1)}
    for table in (callback for callback in trainer.callbacks if isinstance(callback, EpochTable)):  # type: ignore[attr-defined]
        fitted["epoch_seconds"] = table.seconds
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_score is not None:
            epoch = checkpoints.read(Path(callback.best_model_path))["epoch"]
            return fitted | {"best": {"epoch": epoch, "score": float(callback.best_model_score), **settings["monitor"]}}
    score = trainer.callback_metrics.get(settings["monitor"]["metric"], float("nan"))
    return fitted | {"best": {"epoch": trainer.current_epoch - 1, "score": float(score), **settings["monitor"]}}


@verb("train")
def main(cfg: DictConfig) -> float:
    """Train in the folder that Hydra made for this run."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from emotion.callbacks.graceful_stop import Stopped
    from emotion.checkpoints import LAST

    run_dir = near(Path(HydraConfig.get().runtime.output_dir))
    try:
        return train(cfg, run_dir)
    except MisconfigurationException as error:
        raise UserError(f"trainer: {error}") from error
    except (Stopped, KeyboardInterrupt, SystemExit) as stopped:
        if (run_dir / LAST).is_file():
            print(f"Go on with: python -m emotion.train resume={run_dir}", file=sys.stderr)
        if isinstance(stopped, Stopped):
            print(stopped, file=sys.stderr)
            sys.exit(128 + stopped.signum)
        if isinstance(stopped.__context__, KeyboardInterrupt):  # which Lightning turns into exit status 1
            raise KeyboardInterrupt from stopped
        raise


if __name__ == "__main__":
    resume_in_place()
    name_jobs_by_difference()
    main()
