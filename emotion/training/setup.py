"""Build the parts of a training run from its config."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint, Timer
from omegaconf import DictConfig, OmegaConf

from emotion.checkpoints.checkpoint_io import AtomicCheckpointIO
from emotion.classifier import EmotionClassifier
from emotion.config.compose import as_yaml, is_int_at_least
from emotion.config.instantiate import check_targets, instantiate
from emotion.config.migrate import migrate
from emotion.config.ranges import RANGES, check_ranges
from emotion.config.typed import check_choices, typed
from emotion.data.datamodule import EmotionDataModule
from emotion.data.faces import EMOTIONS
from emotion.data.labels import TARGET_KINDS
from emotion.data.sources import select_source, synthetic_warning
from emotion.data.splits import check_split
from emotion.data.transforms.tta import TTA
from emotion.errors import UserError
from emotion.metrics.classification import EPOCH_METRICS
from emotion.records.run_record import RunRecord
from emotion.reporting.text import wrapped
from emotion.runtime import distributed, hardware
from emotion.runtime.announce import is_terminal
from emotion.runtime.precision import PrecisionReport, choose_precision
from emotion.runtime.precision import precision_report as network_precision_report
from emotion.training.config import TrainConfig
from emotion.training.distillation import load_teacher

if TYPE_CHECKING:  # importing timm is slow
    from emotion.training.pretrained import LoadedWeights

METRICS = tuple(f"{stage}/{metric}" for stage in ("val", "train") for metric in EPOCH_METRICS)
DATA_SETTINGS = (
    "labels", "split", "input", "augment", "mixup", "batch_size", "seed", "cache_dir", "sampler", "overfit", "target",
)  # fmt: skip
CLASSIFIER_SETTINGS = ("input", "loss", "optimizer", "scheduler", "backbone_lr", "layer_decay")
PRECISIONS = ("auto", "32-true", "16-mixed", "bf16-mixed", "32", "16", "bf16")
"""Of the network's computations; its weights are always float32."""
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
"""Of torch.compile; reduce-overhead captures CUDA graphs."""

Kind = TypeVar("Kind", bound=TrainConfig)


def resolve(cfg: DictConfig, run_dir: Path) -> TrainConfig:
    """Resolve and check the config of a run; see `resolve_as`."""
    return resolve_as(TrainConfig, cfg, run_dir)


def resolve_as(kind: type[Kind], cfg: DictConfig, run_dir: Path) -> Kind:
    """Resolve a config into the dataclass `kind` and check it.

    `trainer.precision` may stay "auto": only the network decides it, see `resolve_precision`.

    Raises:
        UserError: A setting has a wrong type or value, or a `_target_` is not allowed.
    """
    cfg = OmegaConf.create(migrate(OmegaConf.to_container(cfg)))
    cfg.run_dir = str(run_dir)
    check_targets(OmegaConf.to_container(cfg))
    if OmegaConf.is_missing(cfg, "name"):
        cfg.name = cfg.model._target_.split(".")[-2]
    if isinstance(cfg.get("distillation"), DictConfig) and OmegaConf.is_missing(cfg.distillation, "teacher"):
        cfg.distillation.teacher = None  # `load_teacher` reports it
    check_ranges(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
    config = typed(cfg, kind)
    if config.monitor["metric"] not in METRICS or config.monitor["mode"] not in ("min", "max"):
        raise UserError(f"monitor={config.monitor}: expected a metric of {', '.join(METRICS)}, and mode max or min.")
    for name, least in (("limit_train_batches", 1), ("limit_val_batches", 0)):
        limit = config.trainer.get(name)
        is_share = limit is None or (isinstance(limit, float) and (0 < limit <= 1 or limit == least))
        if not is_share and not is_int_at_least(limit, least):
            expected = f"a number of batches of at least {least}, or a share of them above 0 and at most 1"
            raise UserError(f"trainer.{name}={limit}: expected {expected}.")
    for name in ("max_epochs", "accumulate_grad_batches"):
        if config.trainer.get(name) is None:
            raise UserError(f"trainer.{name}=null: expected {RANGES[f'trainer.{name}']}.")
    if str(config.trainer["precision"]) not in PRECISIONS:
        raise UserError(f"trainer.precision={config.trainer['precision']}: expected {', '.join(PRECISIONS)}.")
    if not config.model.get("weights"):
        raise UserError("model.weights=null: expected pretrained, random, a file or a run.")
    _check_validation(config)
    if config.trainer.get("overfit_batches"):
        raise UserError("trainer.overfit_batches would train on other faces in each epoch; use debug=overfit.")
    if config.trainer.get("fast_dev_run"):
        raise UserError("trainer.fast_dev_run keeps no checkpoint to evaluate; debug=limit runs a few batches of all.")
    if config.trainer.get("max_time"):
        raise UserError("trainer.max_time would be ignored; set trainer.max_epochs, or stop the run and resume it.")
    accelerator = config.trainer["accelerator"]
    if accelerator in ("gpu", "cuda", "mps") and not torch.accelerator.is_available():
        raise UserError(
            f"trainer.accelerator={accelerator}: PyTorch finds no GPU on this machine; expected trainer=cpu, or "
            f"trainer=auto for the best there is."
        )
    check_choices(config, tta=tuple(TTA), target=TARGET_KINDS)
    for device, mode in config.compile.items():
        if mode not in (True, False, *COMPILE_MODES):
            raise UserError(f"compile.{device}={mode}: expected true, false, {', '.join(COMPILE_MODES)}.")
    return config


def _check_validation(config: TrainConfig) -> None:
    """Raise UserError unless each epoch is validated and has the metrics that callbacks of this package monitor."""
    if config.trainer.get("check_val_every_n_epoch", 1) != 1:
        raise UserError(
            f"trainer.check_val_every_n_epoch={config.trainer['check_val_every_n_epoch']}: expected 1; each epoch is "
            f"validated, so that the best one is found."
        )
    interval = config.trainer.get("val_check_interval")
    if not (interval is None or (isinstance(interval, float) and interval == 1)):  # the integer 1 is one batch
        raise UserError(
            f"trainer.val_check_interval={interval}: expected 1.0; a network is validated at the end of each epoch, "
            f"whose scores metrics.csv has."
        )
    for name, callback in config.callbacks.items():
        if not isinstance(callback, dict):
            raise UserError(
                f"callbacks.{name}={as_yaml(callback)}: expected a callback's settings; ~callbacks.{name} removes it."
            )
        monitor = callback.get("monitor")
        if str(callback.get("_target_")).startswith("emotion.") and monitor not in (None, *METRICS):
            raise UserError(f"callbacks.{name}.monitor={monitor}: expected one of {', '.join(METRICS)}.")
    stopping = config.callbacks.get("early_stopping")
    if stopping and config.trainer.get("limit_val_batches") == 0 and stopping["monitor"].startswith("val/"):
        raise UserError(
            f"trainer.limit_val_batches=0: callbacks.early_stopping needs {stopping['monitor']}; expected at least 1 "
            f"batch, or no early stopping: ~callbacks.early_stopping."
        )


def check_parts(config: TrainConfig) -> None:
    """Build the parts that need no data, once, so that they refuse their settings before the data are read.

    Raises:
        UserError: A part refuses its settings.
    """
    EmotionDataModule(source={}, **{name: getattr(config, name) for name in DATA_SETTINGS})
    check_split(config.split)
    classes = tuple(config.labels or EMOTIONS)  # with labels=source, those of the data are unknown
    _make_classifier(config, classes, [1.0] * len(classes))
    if config.distillation and config.labels and not config.preflight.get("run"):  # which checks without a teacher
        load_teacher(config.distillation, classes)
    precision = "32-true" if config.trainer["precision"] == "auto" else config.trainer["precision"]
    make_trainer(replace(config, trainer=config.trainer | {"precision": precision}, logger={}))


def make_data(config: TrainConfig) -> tuple[EmotionDataModule, dict[str, Any]]:
    """Return the data module, set up, and the description of the data for the run record.

    Raises:
        UserError: The data is missing or damaged, or does not have the rows and classes that training needs.
    """
    source = select_source(config.data)
    if source.is_fallback:
        print(wrapped(f"*** {synthetic_warning(config.data)} ***") + "\n", flush=True)
    data = EmotionDataModule(
        source=source.config,
        mix=source.mix_percent,
        **{name: getattr(config, name) for name in DATA_SETTINGS},
    )
    data.setup()
    data.check_training()
    excluded = {"exclusions": data.exclusions} if data.exclusions else {}
    return data, data.description() | {"synthetic": data.faces.is_synthetic} | excluded


def make_classifier(config: TrainConfig, data: EmotionDataModule) -> EmotionClassifier:
    """Return the classifier for the data's classes with random weights.

    Raises:
        UserError: The network, the loss, the optimizer or its schedule refuses its settings.
    """
    return _make_classifier(config, data.classes, data.class_counts.tolist())


def _make_classifier(config: TrainConfig, classes: Sequence[str], class_counts: Sequence[float]) -> EmotionClassifier:
    classifier = EmotionClassifier(
        model={name: value for name, value in config.model.items() if name != "weights"},
        classes=classes,
        class_counts=class_counts,
        monitor=config.monitor["metric"],
        **{name: getattr(config, name) for name in CLASSIFIER_SETTINGS},
    )
    optimizer = classifier.make_optimizer()  # it and its schedule refuse settings before the run has a folder
    if config.scheduler:
        classifier.make_scheduler(optimizer, total_steps=1)
    return classifier


def load_weights(classifier: EmotionClassifier, config: TrainConfig) -> "LoadedWeights | None":
    """Load `model.weights` into the network; print and return which tensors were loaded; None for random weights.

    Raises:
        UserError: The weights are missing or damaged, or are those of another network.
    """
    if config.model["weights"] == "random":
        return None
    from emotion.training.pretrained import load_into

    logging.getLogger("timm").setLevel(logging.WARNING)
    size, channels = config.input["size"], config.input["channels"]
    loaded = load_into(classifier.net, config.model["weights"], size, channels, classifier.classes)
    print(wrapped(str(loaded)), flush=True)
    return loaded


def set_teacher(classifier: EmotionClassifier, config: TrainConfig) -> dict[str, Any] | None:
    """Give the classifier the teacher of `distillation`; return its description for the run record, or None.

    Raises:
        UserError: The teacher is missing or damaged, or has other classes.
    """
    if not config.distillation:
        return None
    teacher = load_teacher(config.distillation, classifier.classes)
    for member in teacher.classifiers:
        member.optimize_for_device(channels_last=config.channels_last)
    classifier.teacher = teacher
    return teacher.description()


def resolve_precision(config: Kind, classifier: EmotionClassifier, previous: RunRecord | None = None) -> Kind:
    """Return the config with `trainer.precision=auto` replaced by the best precision that the network allows.

    That is bfloat16 if this machine computes the layers of the network and of its teachers accurately in it, and not
    slower than in float32. A resumed run keeps the precision of its record, `previous`. A sharded network is not
    measured: one process may not have the memory for it.
    """
    precision = config.trainer["precision"]
    if precision == "auto":
        precision = hardware.native_precision("auto", config.trainer["accelerator"])
        if previous:
            precision = previous.machine["precision"]
        elif precision == "bf16-mixed" and not distributed.is_sharded(config.trainer):
            classifiers = [classifier, *(classifier.teacher.classifiers if classifier.teacher else [])]
            precision = choose_precision((precision_report(config, one) for one in classifiers), "trainer.precision")
    return replace(config, trainer=config.trainer | {"precision": precision})


def precision_report(config: TrainConfig, classifier: EmotionClassifier) -> PrecisionReport:
    """Compare the layers of a network in bfloat16 and float32 as the run would compute them."""
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    accelerator = config.trainer["accelerator"]
    shape = config.batch_size, *classifier.input_shape
    return network_precision_report(classifier.net, shape, memory_format, accelerator, config.cache_dir)


def optimize_for_device(classifier: EmotionClassifier, config: TrainConfig, *, may_compile: bool) -> bool:
    """Set the memory format and compile the network as configured; return whether it is compiled."""
    accelerator = config.trainer["accelerator"]
    kind = "gpu" if hardware.uses_gpu(accelerator) else "cpu"
    mode = config.compile[kind]
    if kind == "cpu":
        hardware.keep_freed_memory()
    compiled = bool(mode) and may_compile and hardware.can_compile(accelerator)
    compile_mode = ("default" if mode is True else mode) if compiled else None
    classifier.optimize_for_device(channels_last=config.channels_last, compile_mode=compile_mode)
    return compiled


def make_trainer(config: TrainConfig) -> Trainer:
    """Return the trainer with its callbacks and loggers.

    Raises:
        UserError: The settings do not fit the machine or each other.
    """
    for library in ("lightning.pytorch", "lightning.fabric.utilities.distributed"):  # tips, and a line per process
        logging.getLogger(library).setLevel(logging.WARNING)
    callbacks, settings = config.callbacks, dict(config.trainer)
    if not is_terminal():  # a log file has the epoch table
        callbacks = {name: callback for name, callback in callbacks.items() if name != "progress_bar"}
    if "staged_unfreezing" in callbacks and distributed.is_replicated(settings):
        settings["strategy"] = "ddp_find_unused_parameters_true"  # frozen parameters have no gradients
    has_accelerator = torch.accelerator.is_available() and settings["accelerator"] != "cpu"
    if settings["devices"] == -1 and not has_accelerator:
        raise UserError(
            "trainer.devices=-1 starts one process per accelerator, and this machine has none; give the number of "
            "processes: trainer.devices=2."
        )
    if distributed.is_sharded(settings):
        if "ema" in callbacks:
            raise UserError(
                "trainer=fsdp: no process holds all weights, which callbacks.ema averages; remove it: ~callbacks.ema."
            )
        callbacks = {name: callback for name, callback in callbacks.items() if name not in removed_callbacks(config)}
    environment = distributed.slurm_environment(settings["devices"], settings.get("num_nodes", 1))
    try:
        built = [instantiate(callback) for callback in callbacks.values()]
        trainer: Trainer = instantiate(
            settings,
            callbacks=[*built, Timer(verbose=False)],
            logger=[instantiate(logger) for logger in config.logger.values()],
            plugins=[AtomicCheckpointIO(), *environment],
            enable_progress_bar="progress_bar" in callbacks,
            enable_model_summary="model_summary" in callbacks,
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in built),
        )
    except MisconfigurationException as error:
        raise UserError(f"trainer: {error}") from error
    return trainer


def effective_batch(trainer: Trainer, config: TrainConfig) -> dict[str, Any]:
    """Return the factors of the effective batch size for the run record, and the learning rate, which is not scaled."""
    accumulated = trainer.accumulate_grad_batches
    return {
        "processes": trainer.world_size,
        "nodes": trainer.num_nodes,
        "batch_size": config.batch_size,
        "accumulated": accumulated,
        "effective_batch": config.batch_size * accumulated * trainer.world_size,
        "lr": config.optimizer["lr"],
    }


def removed_callbacks(config: TrainConfig) -> list[str]:
    """Return the callbacks that a sharded run leaves out, as they need the whole network in one process."""
    names = distributed.RANK_ZERO_NETWORK_CALLBACKS if distributed.is_sharded(config.trainer) else ()
    return [name for name in names if name in config.callbacks]
