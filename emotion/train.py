"""Train a classifier, score its best epoch once on test, write the run record: python -m emotion.train model=NAME."""

import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from emotion.cli import MULTIRUN, in_a_sweep, resume_in_place, verb
from emotion.errors import UserError
from emotion.reporting.text import near

if TYPE_CHECKING:  # what a verb needs is imported when it runs: --help and a mistyped override are answered at once
    from lightning.pytorch import Trainer

    from emotion.classifier import EmotionClassifier
    from emotion.data.datamodule import EmotionDataModule

Settings = dict[str, Any]


def train(cfg: DictConfig, run_dir: Path) -> float:
    """Fit, score the best epoch on test, write the run record; the best monitored score.

    Raises:
        UserError: something given is missing or wrong.
        Stopped: Ctrl-C or SIGTERM; a checkpoint to resume from is written.
    """
    from emotion.records import run_folder
    from emotion.runtime.distributed import is_first
    from emotion.training import resume, setup

    settings = setup.resolve(cfg, run_dir)
    first = is_first()
    with run_folder.alone_in(run_dir) if first else nullcontext():  # a run's other processes follow its first
        if settings["resume"] == "auto" and (found := run_folder.read(run_dir)).state == "finished":
            resume.check_recipe(found.record, settings)
            resume.check_stand_in(found.record, settings)
            print(f"{run_dir}: finished after {found.record['epochs']} epochs; nothing to do", flush=True)
            return float(found.record["best"]["score"])
        return _train(cfg, resume.resumed(settings, run_dir, first=first), run_dir)


def _train(cfg: DictConfig, settings: Settings, run_dir: Path) -> float:
    started = time.perf_counter()
    import lightning as L

    from emotion.checkpoints.load import PREVIOUS_CHECKPOINT
    from emotion.data.dataloader import check_processes
    from emotion.records import run_folder, run_record
    from emotion.training import final_evaluation, resume, setup

    former = run_record.read_record(run_dir) if settings["resume"] else None
    fitted = resume.goes_no_further(former, settings)
    L.seed_everything(settings["seed"], verbose=False)
    data, source = setup.make_data(settings)
    classifier = setup.make_classifier(settings, data)
    loaded = None if settings["resume"] else setup.load_weights(classifier, settings)
    if settings.get("preflight", {}).get("run"):
        from emotion.training.preflight import preflight

        setup.decide_precision(classifier, settings)
        return preflight(classifier, data, settings, run_dir)
    taught = setup.teach(classifier, settings)
    setup.decide_precision(classifier, settings, former)
    compiled = setup.tune(classifier, settings, short=source["stand_in"])
    if former:
        resume.check_teachers(former.get("distillation"), taught)
    trainer = setup.make_trainer(settings, limited=source["stand_in"])
    for part in (data.split.train, data.split.val):  # before any other process is started
        check_processes(len(part), trainer.world_size)
    record = {
        "command": run_record.command(),
        "commit": run_record.commit(),
        "versions": run_record.versions(),
        "machine": _machine(settings, compiled=compiled),
        "config": settings,
        "data": source,
        "split": {part: len(rows) for part, rows in data.split._asdict().items()},
        "distillation": taught,
        "parameters": sum(parameter.numel() for parameter in classifier.net.parameters()),
        "effective": setup.effective(trainer, settings),
        "weights": loaded._asdict() | {"loaded": len(loaded.loaded)} if loaded else None,
    }
    if former:
        again = {key: record[key] for key in ("command", "commit")}
        record |= {key: former.get(key) for key in (*again, "weights")} | {
            "resumed": [*former.get("resumed", []), again]
        }
    if trainer.is_global_zero:
        _announce(record)
        run_folder.keep_config(cfg, run_dir)
        data.save_rows(run_dir / "rows.npz")
        begun = former | {"resumed": record["resumed"], "files": {}} if former else record
        run_record.write_record(run_dir, begun)
    if former and fitted:
        record |= {key: former[key] for key in ("epochs", "fit_seconds", "epoch_seconds", "best") if key in former}
    else:
        record |= _fit(trainer, classifier, data, settings)
    if trainer.is_global_zero:
        unscored = record | {"scores": None}
        run_record.write_record(run_dir, unscored)  # a run stopped while it is scored resumes from here
        device = trainer.strategy.root_device
        record["calibration"] = final_evaluation.calibrate(run_dir, data, device, trainer.precision)
        if settings.get("study"):  # a search chooses on validation: only what it chose may read test
            record["scores"] = {}
        else:
            record["scores"] = final_evaluation.score(record, data, trainer)
        if not former:
            record["wall_seconds"] = round(time.perf_counter() - started, 1)  # all but the start of Python and Hydra
        run_record.write_record(run_dir, record | {"files": run_record.files_of(run_dir)})
        (run_dir / PREVIOUS_CHECKPOINT).unlink(missing_ok=True)
    return float(record["best"]["score"])


def _machine(settings: Settings, *, compiled: bool) -> Settings:
    from emotion.runtime.hardware import description

    return {
        "device": description(settings["trainer"]["accelerator"]),
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
        f"{_step(record['effective'])}\n"
        f"run: {settings['run_dir']}",
        flush=True,
    )


def _step(each: Settings) -> str:
    """What a step of the optimiser takes, as a person reads it."""
    factors = [f"{each['batch_size']} faces"]
    if each["processes"] > 1:
        factors.append(f"{each['processes']} processes on {each['nodes']} {'nodes' if each['nodes'] > 1 else 'node'}")
    if each["accumulated"] > 1:
        factors.append(f"{each['accumulated']} batches")
    product = f" = {each['effective_batch']}" if len(factors) > 1 else ""
    return f"a step: {' x '.join(factors)}{product}; learning rate {each['lr']:g}, as configured"


def _fit(
    trainer: "Trainer", classifier: "EmotionClassifier", data: "EmotionDataModule", settings: Settings
) -> Settings:
    """Train from the start or from the run's last checkpoint; epochs, seconds and the best epoch, for the record."""
    from lightning.pytorch.callbacks import ModelCheckpoint, Timer

    from emotion.callbacks.epoch_table import EpochTable
    from emotion.checkpoints.load import read_checkpoint
    from emotion.training import resume

    run_dir = Path(settings["run_dir"])
    begins = resume.last_good(run_dir, classifier, data) if settings["resume"] else None
    trainer.fit(classifier, datamodule=data, ckpt_path=begins, weights_only=True)
    timer = next(callback for callback in trainer.callbacks if isinstance(callback, Timer))  # type: ignore[attr-defined]
    fitted: Settings = {"epochs": trainer.current_epoch, "fit_seconds": round(timer.time_elapsed("train"), 1)}
    for table in (callback for callback in trainer.callbacks if isinstance(callback, EpochTable)):  # type: ignore[attr-defined]
        fitted["epoch_seconds"] = table.seconds
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_score is not None:
            epoch = read_checkpoint(Path(callback.best_model_path))["epoch"]
            return fitted | {"best": {"epoch": epoch, "score": float(callback.best_model_score), **settings["monitor"]}}
    score = trainer.callback_metrics.get(settings["monitor"]["metric"], float("nan"))
    return fitted | {"best": {"epoch": trainer.current_epoch - 1, "score": float(score), **settings["monitor"]}}


@verb("train")
def main(cfg: DictConfig) -> float:
    """Train in the folder that Hydra made for this run."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from emotion.callbacks.graceful_stop import requeue_on
    from emotion.checkpoints.locate import LAST_CHECKPOINT
    from emotion.errors import Pruned, Stopped
    from emotion.runtime.distributed import is_first

    run_dir = near(Path(HydraConfig.get().runtime.output_dir))
    requeue_on(signal.SIGUSR1)
    try:
        if in_a_sweep():
            from emotion.sweeps import job

            return job.run(train, cfg, run_dir)
        return train(cfg, run_dir)
    except MisconfigurationException as error:
        raise UserError(f"trainer: {error}") from error
    except (UserError, Pruned) as error:
        if is_first():
            raise UserError(str(error)) from error
        sys.exit(0)  # the first says it; Lightning would kill it for another that ends otherwise
    except (Stopped, KeyboardInterrupt, SystemExit, OSError) as stopped:
        if isinstance(stopped, Stopped) and not is_first():
            sys.exit(0)
        if (run_dir / LAST_CHECKPOINT).is_file() and not in_a_sweep():  # which goes on with it by itself
            print(f"Go on with: python -m emotion.train resume={run_dir}", file=sys.stderr)
        if isinstance(stopped, Stopped):
            print(stopped, file=sys.stderr)
            sys.exit(128 + stopped.signum)
        if isinstance(stopped.__context__, KeyboardInterrupt):  # which Lightning turns into exit status 1
            raise KeyboardInterrupt from stopped
        raise


def many_or_one() -> None:
    """Train as the command line says: one run, or a sweep and a report of what became of it, status 1 for losses."""
    resume_in_place()
    if not MULTIRUN & set(sys.argv) and not any(argument.startswith("sweep=") for argument in sys.argv):
        return main()
    from emotion.sweeps.run_sweep import run_sweep

    run_sweep(main)


if __name__ == "__main__":
    many_or_one()
