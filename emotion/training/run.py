"""A training run in three steps: set it up, fit it, finalize it."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from omegaconf import DictConfig

from emotion.callbacks.epoch_table import EpochTable
from emotion.checkpoints.load import PREVIOUS_CHECKPOINT, read_checkpoint
from emotion.checkpoints.locate import BEST_CHECKPOINT
from emotion.classifier import EmotionClassifier
from emotion.data.dataloader import check_processes
from emotion.data.datamodule import EmotionDataModule
from emotion.data.sources import select_source
from emotion.errors import counted
from emotion.io.digests import file_digest
from emotion.records.predictions import PREDICTIONS
from emotion.records.run_folder import write_config
from emotion.records.run_record import RECORD, RunRecord, provenance
from emotion.runtime.hardware import device_name, flushed_denormals
from emotion.training import final_evaluation, resume
from emotion.training import setup as parts
from emotion.training.config import TrainConfig

HASHED_FILES = (str(BEST_CHECKPOINT), "rows.npz", PREDICTIONS, "metrics.csv", "label_map.json")
"""Files of a finished run that other verbs read; the record lists their SHA-256."""


@dataclass
class TrainingRun:
    """The parts of a run."""

    config: TrainConfig
    run_dir: Path
    data: EmotionDataModule
    classifier: EmotionClassifier
    trainer: L.Trainer
    record: RunRecord  # so far
    previous: RunRecord | None  # of the run that is resumed
    is_fit_complete: bool  # whether the resumed run has trained all its epochs
    checkpoint: Path | None  # from which it is resumed
    started: float  # time.perf_counter()


def setup(config: TrainConfig, cfg: DictConfig) -> TrainingRun:
    """Build the parts of a run and write its record and the config `cfg` into the run's folder.

    Raises:
        UserError: A setting is wrong, or the run cannot be resumed.
    """
    started, run_dir = time.perf_counter(), Path(config.run_dir)
    previous = RunRecord.read(run_dir) if config.resume else None
    if previous:
        resume.check_resumable(previous, config)
    is_fit_complete = previous is not None and resume.is_fit_complete(previous, config)
    is_fallback = select_source(config.data).is_fallback
    L.seed_everything(config.seed, verbose=False)
    data, description = parts.make_data(config)
    config = replace(config, labels=data.hparams["labels"])
    classifier = parts.make_classifier(config, data)
    weights = None if config.resume else parts.load_weights(classifier, config)
    distillation = parts.set_teacher(classifier, config)
    config = parts.resolve_precision(config, classifier, previous)
    compiled = parts.optimize_for_device(classifier, config, may_compile=not is_fallback)
    if previous:
        resume.check_teachers(previous.distillation, distillation)
    checkpoint = None
    if previous and is_fit_complete:
        resume.check_digest(previous, data.faces)
    elif config.resume:  # before anything is written
        checkpoint = resume.latest_valid_checkpoint(run_dir, classifier, data, config.trainer["max_epochs"])
    trainer = parts.make_trainer(config)
    for rows in (data.split.train, data.split.val):  # before Lightning starts other processes
        check_processes(len(rows), trainer.world_size)
    record = RunRecord(
        **provenance(),
        machine={
            "device": device_name(config.trainer["accelerator"]),
            "precision": config.trainer["precision"],
            "channels_last": config.channels_last,
            "compiled": compiled,
        },
        config=config.to_dict(),
        data=description,
        split={part: len(rows) for part, rows in data.split._asdict().items()},
        distillation=distillation,
        parameters=sum(parameter.numel() for parameter in classifier.net.parameters()),
        effective=parts.effective_batch(trainer, config),
        weights=weights.summary() if weights else None,
    )
    if config.resume:
        record.resumed = [{"command": record.command, "commit": record.commit}]
    if previous:
        record.resumed = previous.resumed + record.resumed
        record.command, record.commit, record.weights = previous.command, previous.commit, previous.weights
    run = TrainingRun(
        config, run_dir, data, classifier, trainer, record, previous, is_fit_complete, checkpoint, started
    )
    if trainer.is_global_zero:
        _start(run, cfg)
    return run


def fit(run: TrainingRun) -> None:
    """Train, from the run's latest checkpoint if it is resumed; record epochs, seconds and the best epoch."""
    record, trainer = run.record, run.trainer
    if run.previous and run.is_fit_complete:
        for name in ("epochs", "fit_seconds", "epoch_seconds", "best"):
            setattr(record, name, getattr(run.previous, name))
        return
    with flushed_denormals():
        trainer.fit(run.classifier, datamodule=run.data, ckpt_path=run.checkpoint, weights_only=True)
    record.epochs = trainer.current_epoch
    score = trainer.callback_metrics.get(run.config.monitor["metric"], float("nan"))
    record.best = {"epoch": trainer.current_epoch, "score": float(score), **run.config.monitor}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer):
            record.fit_seconds = round(callback.time_elapsed("train"), 1)
        elif isinstance(callback, EpochTable):
            record.epoch_seconds = callback.seconds
        elif isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_score is not None:
            epoch = read_checkpoint(Path(callback.best_model_path)).epoch + 1
            record.best |= {"epoch": epoch, "score": float(callback.best_model_score)}


def finalize(run: TrainingRun) -> float:
    """Calibrate the best epoch, score it on test and write the record; return the monitored score."""
    record, run_dir = run.record, run.run_dir
    if run.trainer.is_global_zero:
        record.write(run_dir)  # a run that is stopped during scoring resumes from here
        device = run.trainer.strategy.root_device
        record.calibration = final_evaluation.calibrate(run_dir, run.data, device, run.trainer.precision)
        if run.config.study:  # a search chooses by validation and must not see test
            record.scores = {}
        else:
            record.scores = final_evaluation.evaluate_on_test(record, run.data, run.trainer)
        if not record.resumed:
            record.wall_seconds = round(time.perf_counter() - run.started, 1)  # without the start of Python and Hydra
        record.files = {name: file_digest(run_dir / name) for name in HASHED_FILES if (run_dir / name).is_file()}
        record.write(run_dir)
        (run_dir / PREVIOUS_CHECKPOINT).unlink(missing_ok=True)
    return float(record.best["score"])


def _start(run: TrainingRun, cfg: DictConfig) -> None:
    """Print what the run trains; write its config, rows and record."""
    config, run_dir = run.config, run.run_dir
    _announce(run.record)
    if config.resume and not run.previous:
        print(f"warning: {run_dir / RECORD} is missing, so the run's first command is unknown.", flush=True)
    if removed := parts.removed_callbacks(config):
        print(f"removed callbacks that need the whole network in one process: {', '.join(removed)}", flush=True)
    write_config(cfg, run_dir)
    run.data.save_rows(run_dir / "rows.npz")
    if run.previous and run.is_fit_complete:
        replace(run.previous, resumed=run.record.resumed, files={}).write(run_dir)
    else:  # without the scores of a finished run that trains longer
        run.record.write(run_dir)


def _announce(record: RunRecord) -> None:
    """Print network, data, machine, effective batch size and folder."""
    config, split = TrainConfig.from_dict(record.config), record.split
    size, channels = config.input["size"], config.input["channels"]
    compiled = ", compiled (the first batches take longer)" if record.machine["compiled"] else ""
    excluded = f"; {record.data['exclusions']['file']} excludes {record.num_excluded:,}" if record.num_excluded else ""
    print(
        f"{config.network}, {record.parameters:,} parameters; {len(config.labels)} classes; "
        f"faces {size}x{size}x{channels}\n"
        f"{record.data['source']}: {split['train']:,} train, {split['val']:,} validate, {split['test']:,} test"
        f"{excluded}\n"
        f"{record.machine['device']}; {record.machine['precision']}{compiled}\n"
        f"{_describe_step(record)}\n"
        f"run: {config.run_dir}",
        flush=True,
    )


def _describe_step(record: RunRecord) -> str:
    """Return the factors of the effective batch size and the learning rate as a sentence."""
    step = record.effective
    factors = [counted(step["batch_size"], "face")]
    if step["processes"] > 1:
        nodes = f"{step['nodes']} {'nodes' if step['nodes'] > 1 else 'node'}"
        factors.append(f"{step['processes']} processes on {nodes}")
    if step["accumulated"] > 1:
        factors.append(f"{step['accumulated']} batches")
    product = f" = {step['effective_batch']}" if len(factors) > 1 else ""
    return f"optimizer step: {' x '.join(factors)}{product}; learning rate {step['lr']:g}, not scaled"
