"""Resume a run: check that it may continue, and find the checkpoint to continue from."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from emotion.checkpoints.load import PREVIOUS_CHECKPOINT, check_classes, read_checkpoint
from emotion.checkpoints.locate import LAST_CHECKPOINT
from emotion.data.cache import LOCATIONS, prepare
from emotion.data.faces import Faces
from emotion.data.sources import select_source
from emotion.errors import UserError, counted
from emotion.records.recipe import recipe, recipe_differences
from emotion.records.run_record import RunRecord
from emotion.training.config import TrainConfig
from emotion.training.distillation import load_teacher

if TYPE_CHECKING:
    from emotion.classifier import EmotionClassifier
    from emotion.data.datamodule import EmotionDataModule

COMPARED_BY_DIGEST = ("source", "split", "cache_dir")
"""Hyper-parameters of the data module that may differ between machines; its state has digests of the data."""
STEP_KEYS = ("max_epochs", "max_steps", "limit_train_batches", "accumulate_grad_batches", "devices", "num_nodes")
"""Settings of the trainer that determine the number of optimizer steps."""
LOCATION_KEYS = (*LOCATIONS, "required_paths", "data_dir")
"""Settings of a data source that say where it is, which may differ between machines."""


def resolve_resume(config: TrainConfig, run_dir: Path, *, rank_zero: bool) -> TrainConfig:
    """Return the config with `resume=auto` replaced: the run's folder if it has a checkpoint, else None.

    Only rank 0 looks at the record: by the time the other processes start, rank 0 has written this run's.

    Raises:
        UserError: The folder contains a run with other settings, or a run that was not to be resumed.
    """
    previous = RunRecord.read(run_dir) if rank_zero else None
    if config.resume == "auto":
        if previous:
            check_recipe(previous, config)
        return replace(config, resume=str(run_dir) if (run_dir / LAST_CHECKPOINT).is_file() else None)
    if previous and not config.resume:
        raise UserError(
            f"{run_dir} already contains a run. Resume it with resume={run_dir}, or choose another folder: "
            f"hydra.run.dir=FOLDER."
        )
    return config


def check_resumable(previous: RunRecord, config: TrainConfig) -> None:
    """Raise UserError if a run is finished, or its learning rate schedule was made for another number of steps."""
    by_step = config.scheduler.get("interval") == "step"
    previous_max_epochs = previous.config["trainer"]["max_epochs"]
    if previous.scores is not None and previous_max_epochs >= config.trainer["max_epochs"]:
        advice = "raise trainer.max_epochs"
        if by_step:
            advice = f"start another run with model.weights={config.run_dir}"
        elif previous.epochs < previous_max_epochs:  # early stopping
            advice += " and callbacks.early_stopping.patience"
        trained = counted(previous.epochs, "epoch")
        raise UserError(f"{config.run_dir} is finished after {trained}; to train longer, {advice}.")
    before, now = recipe(previous.config)["trainer"], recipe(config.to_dict())["trainer"]
    if by_step and (key := next((key for key in STEP_KEYS if before.get(key) != now.get(key)), None)):
        raise UserError(
            f"{config.run_dir}: its learning rate schedule was made for trainer.{key}={before.get(key)}, found "
            f"trainer.{key}={now.get(key)}; start another run."
        )


def is_fit_complete(previous: RunRecord, config: TrainConfig) -> bool:
    """Return whether a resumed run has trained all its epochs, so that only its scores are missing."""
    return bool(previous.best) and previous.config["trainer"]["max_epochs"] >= config.trainer["max_epochs"]


def latest_valid_checkpoint(
    run_dir: Path, classifier: "EmotionClassifier", data: "EmotionDataModule", max_epochs: int
) -> Path:
    """Return the last valid checkpoint: the previous one if the last is damaged or belongs to another run.

    Raises:
        UserError: There is no valid checkpoint, or it is of an epoch after `max_epochs`.
    """
    reasons: list[str] = []
    paths = [path for path in (run_dir / LAST_CHECKPOINT, run_dir / PREVIOUS_CHECKPOINT) if path.is_file()]
    for path in paths:
        try:
            epochs = _check_checkpoint(path, classifier, data) + 1
        except UserError as error:
            reasons.append(str(error))
            continue
        if epochs > max_epochs:
            trained = counted(epochs, "epoch")
            raise UserError(f"{path} has trained {trained}; found trainer.max_epochs={max_epochs}, expected no fewer.")
        if reasons:
            print(f"{reasons[0]}\nResuming from {path}, epoch {epochs}.", flush=True)
        return path
    if reasons:
        raise UserError("\n".join(dict.fromkeys(reasons)))
    raise UserError(f"{run_dir} has no {LAST_CHECKPOINT}: it stopped before its first checkpoint. Start another run.")


def check_recipe(previous: RunRecord, config: TrainConfig) -> None:
    """Raise UserError if the run in the folder has another recipe, seed or data than `config`."""
    if not previous.config:
        return
    expected = config if config.labels else replace(config, labels=previous.labels)  # labels=source
    wanted = expected.to_dict()
    if wanted["distillation"]:
        wanted["distillation"] = wanted["distillation"] | {"teacher": MISSING}  # which `check_teachers` compares
    differing = recipe_differences(previous.config, wanted)
    if _without_locations(previous.config["data"]) != _without_locations(config.data):
        differing.append("data")
    differing += [key for key in ("seed", "tta") if previous.config[key] != getattr(config, key)]
    if differing:
        raise _another_folder(config, f"contains a run with another {', '.join(differing)}")


def check_files(previous: RunRecord, config: TrainConfig) -> None:
    """Raise UserError if a finished run had other data or teachers than those of `config`, which may have moved."""
    if config.distillation and previous.config["distillation"] != config.distillation:
        teacher = load_teacher(config.distillation, list(previous.labels))
        check_teachers(previous.distillation, teacher.description())
    source = reader = select_source(config.data).config
    while isinstance(reader.get("source"), Mapping):
        reader = reader["source"]
    if previous.is_synthetic != (reader["_target_"] == "emotion.data.readers.synthetic.read"):
        raise _another_folder(config, f"was trained on {previous.data['source']}, now data={reader['_target_']}")
    if previous.config["data"] != config.data:  # read it only if it is in another place
        check_digest(previous, prepare(source, config.cache_dir))


def check_digest(previous: RunRecord, faces: Faces) -> None:
    """Raise UserError if faces are not those on which a run was trained."""
    main = faces.components[0] if "mix" in previous.data else faces
    if main.digest != previous.data["digest"]:
        raise UserError(
            f"{main.source} is not {previous.data['source']}, the data that the run started with. Restore it or set "
            f"its location (data_dir=FOLDER), or start a new run."
        )


def check_teachers(previous: dict[str, Any] | None, current: dict[str, Any] | None) -> None:
    """Raise UserError if a resumed run has other teachers than it started with; their files may have moved."""
    before, after = (distillation["teachers"] if distillation else [] for distillation in (previous, current))
    if [teacher["sha256"] for teacher in before] != [teacher["sha256"] for teacher in after]:
        names = [
            ", ".join(f"{teacher['path']} (epoch {teacher['epoch']})" for teacher in teachers) or "none"
            for teachers in (after, before)
        ]
        raise UserError(
            "distillation.teacher: found {}; the run started with {}, a file with another SHA-256. Restore that "
            "teacher, or start another run.".format(*names)
        )


def _check_checkpoint(path: Path, classifier: "EmotionClassifier", data: "EmotionDataModule") -> int:
    """Check that a checkpoint has the run's network, recipe, seed and data; return its epoch."""
    checkpoint = read_checkpoint(path)
    check_classes(path, checkpoint.classes, data.classes)
    data.load_state_dict(checkpoint.data_state)
    for stored, own in (
        (checkpoint.hyper_parameters, classifier.hparams),
        (checkpoint.data_hyper_parameters, data.hparams),
    ):
        differing = [key for key in stored if key not in COMPARED_BY_DIGEST and stored[key] != own.get(key)]
        if differing:
            raise UserError(
                f"{path} belongs to another run: it has another {', '.join(differing)}. Restore it from a copy, or "
                f"start another run."
            )
    return checkpoint.epoch


def _without_locations(config: object) -> object:
    if not isinstance(config, dict):
        return config
    return {key: _without_locations(value) for key, value in config.items() if key not in LOCATION_KEYS}


def _another_folder(config: TrainConfig, found: str) -> UserError:
    return UserError(
        f"{config.run_dir} {found}; choose another folder: hydra.run.dir=FOLDER, or hydra.sweep.dir=FOLDER for a sweep."
    )
