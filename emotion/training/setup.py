"""The parts of a run, from its config: what training and its bench are made of."""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig, OmegaConf

from emotion.checkpoints.checkpoint_io import WholeFileIO
from emotion.classifier import EmotionClassifier
from emotion.config.compose import is_whole
from emotion.config.instantiate import build, check_targets
from emotion.data.datamodule import EmotionDataModule
from emotion.data.sources import locate, not_found
from emotion.data.transforms.tta import TTA
from emotion.errors import UserError
from emotion.metrics.classification import EPOCH_METRICS
from emotion.runtime import distributed
from emotion.runtime.hardware import can_compile, keep_memory, on_gpu, resolve_precision
from emotion.runtime.precision import Verdict, choose_precision, verdict_of
from emotion.training.distillation import teacher_of

if TYPE_CHECKING:  # timm takes its time
    from emotion.training.pretrained import Loaded

Settings = dict[str, Any]
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
"""Of torch.compile; reduce-overhead captures the network's passes as CUDA graphs."""


def resolve(cfg: DictConfig, run_dir: Path) -> Settings:
    """The config as plain values, checked; which precision `auto` is, only the network tells (`decide_precision`).

    Raises:
        UserError: it names what it may not, or the run is to be judged by a metric that it does not log.
    """
    cfg = cfg.copy()
    cfg.run_dir = str(run_dir)
    check_targets(OmegaConf.to_container(cfg, resolve=False))
    if OmegaConf.is_missing(cfg, "name"):
        cfg.name = cfg.model._target_.split(".")[-2]
    settings: Settings = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    logged = [f"{stage}/{metric}" for stage in ("val", "train") for metric in EPOCH_METRICS]
    if settings["monitor"]["metric"] not in logged or settings["monitor"]["mode"] not in ("min", "max"):
        raise UserError(
            f"monitor={settings['monitor']}: expected a metric of {', '.join(logged)}, and mode max or min."
        )
    if not is_whole(settings["batch_size"], 1):
        raise UserError(f"batch_size={settings['batch_size']}: expected a whole number from 1.")
    if settings["tta"] not in TTA:
        raise UserError(f"tta={settings['tta']}: expected {', '.join(TTA)}.")
    return settings


def make_data(settings: Settings) -> tuple[EmotionDataModule, Settings]:
    """The data module, set up, and what its source is; says so where that is only a stand-in."""
    source = locate(settings["data"])
    if source.stand_in:
        print(f"*** {not_found(settings['data'])} ***\n", flush=True)
    described = (
        "labels", "split", "input", "augment", "mixup", "batch_size", "seed", "cache_dir", "sampler", "overfit",
        "target",
    )  # fmt: skip
    given = {name: settings[name] for name in described if name in settings}  # an older run that goes on lacks some
    data = EmotionDataModule(source=source.reader, mix=source.mix, **given)
    data.setup()
    settings["labels"] = data.hparams["labels"]  # which labels=source leaves to the data
    left_out = {"dropped": data.dropped} if data.dropped else {}
    return data, data.described() | {"stand_in": source.stand_in} | left_out


def make_classifier(settings: Settings, data: EmotionDataModule) -> EmotionClassifier:
    """The classifier for the data's classes, its weights as they are drawn."""
    described = ("input", "loss", "optimizer", "scheduler", "backbone_lr", "layer_decay")
    return EmotionClassifier(
        model={name: value for name, value in settings["model"].items() if name != "weights"},
        classes=data.classes,
        class_counts=data.class_counts.tolist(),
        monitor=settings["monitor"]["metric"],
        **{name: settings[name] for name in described if name in settings},
    )


def load_weights(classifier: EmotionClassifier, settings: Settings) -> "Loaded | None":
    """Fill the network from `model.weights`; what was loaded, printed and for the record, None for drawn weights.

    Raises:
        UserError: from `load_into`.
    """
    source = settings["model"]["weights"]
    if source == "random":
        return None
    from emotion.training.pretrained import load_into

    logging.getLogger("timm").setLevel(logging.WARNING)
    taken = settings["input"]["size"], settings["input"]["channels"]
    loaded = load_into(classifier.net, source, *taken, classifier.classes)
    print(loaded, flush=True)
    return loaded


def decide_precision(classifier: EmotionClassifier, settings: Settings, former: Settings | None = None) -> None:
    """Make trainer.precision=auto bfloat16 where the network's layers, and a teacher's, are right and no slower in it.

    A run that goes on (`former` is its record) does so in the precision that it began with. A network whose weights are
    shared among processes need not fit one of them, and is not looked at.
    """
    trainer = settings["trainer"]
    if trainer["precision"] != "auto":
        return
    trainer["precision"] = resolve_precision("auto", trainer["accelerator"])
    if trainer["precision"] != "bf16-mixed":  # the machine does not compute in it
        return
    if former:
        trainer["precision"] = former["machine"]["precision"]
    elif not distributed.is_sharded(trainer):
        computing = [classifier, *(classifier.teacher.classifiers if classifier.teacher else [])]
        found = (verdict_on_bf16(one, settings) for one in computing)
        trainer["precision"] = choose_precision(found, "trainer.precision")


def verdict_on_bf16(classifier: EmotionClassifier, settings: Settings) -> Verdict:
    """What is found of the layers of a network as it trains, or teaches."""
    layout = torch.channels_last if settings["channels_last"] else torch.contiguous_format
    asked = settings["batch_size"], layout, settings["trainer"]["accelerator"], settings["cache_dir"]
    return verdict_of(classifier, *asked)


def tune(classifier: EmotionClassifier, settings: Settings, *, short: bool) -> bool:
    """Memory format and compilation as configured; whether the network is compiled, which a short run is not.

    On a processor the memory of a step is kept for the next.

    Raises:
        UserError: torch.compile has no such mode.
    """
    accelerator = settings["trainer"]["accelerator"]
    kind = "gpu" if on_gpu(accelerator) else "cpu"
    wanted = settings["compile"][kind]
    if wanted not in (True, False, *MODES):
        raise UserError(f"compile.{kind}={wanted}: expected true, false, {', '.join(MODES)}.")
    if kind == "cpu":
        keep_memory()
    compiled = bool(wanted) and not short and can_compile(accelerator)
    mode = "default" if wanted is True else wanted
    classifier.tune(channels_last=settings["channels_last"], compile_mode=mode if compiled else None)
    return compiled


def teach(classifier: EmotionClassifier, settings: Settings) -> Settings | None:
    """Give the classifier the teacher that `distillation` names; what the record says of it, None without one.

    Raises:
        UserError: the teacher is missing, or tells other classes apart.
    """
    if not settings.get("distillation"):
        return None
    teacher = teacher_of(settings["distillation"], classifier.classes)
    for one in teacher.loaded:
        one.classifier.tune(channels_last=settings["channels_last"])
    classifier.set_teacher(teacher)
    return teacher.description()


def make_trainer(settings: Settings, *, limited: bool) -> Trainer:
    """The trainer with its callbacks and loggers; `limited` to `demo_minutes` of training."""
    for library in ("lightning.pytorch", "lightning.fabric.utilities.distributed"):  # tips, devices, every process
        logging.getLogger(library).setLevel(logging.WARNING)
    parts = settings["callbacks"]
    if not sys.stdout.isatty():  # in a log file the epoch table says it all
        parts = {name: part for name, part in parts.items() if name != "progress_bar"}
    asked = dict(settings["trainer"])
    if asked.get("strategy") == "ddp" and "staged_unfreezing" in parts:
        asked["strategy"] = "ddp_find_unused_parameters_true"  # what is frozen has no gradient to wait for
    if asked["devices"] == -1 and not _accelerated(asked["accelerator"]):
        raise UserError(
            "trainer.devices=-1 is one process for each accelerator, and this machine has none; "
            "give their number: trainer.devices=2."
        )
    if distributed.is_sharded(asked):
        parts = _sharded(parts)
    timer = Timer({"minutes": settings["demo_minutes"]} if limited else None, interval="epoch", verbose=False)
    trainer: Trainer = build(
        asked,
        callbacks=[*(build(part) for part in parts.values()), timer],
        logger=[build(part) for part in settings["logger"].values()],
        plugins=[WholeFileIO(), *distributed.cluster(asked["devices"], asked.get("num_nodes", 1))],
        enable_progress_bar="progress_bar" in parts,
        enable_model_summary="model_summary" in parts,
        enable_checkpointing=any("checkpoint" in name for name in parts),
    )
    return trainer


def _accelerated(accelerator: str) -> bool:
    return torch.accelerator.is_available() and accelerator != "cpu"


def _sharded(parts: Settings) -> Settings:
    """What is left of a run's callbacks where processes share the weights: none that looks at the whole network.

    Raises:
        UserError: the moving average of the weights is among them.
    """
    if "ema" in parts:
        raise UserError(
            "trainer=fsdp: no process holds the weights that callbacks.ema would average; take ~callbacks.ema."
        )
    left_out = [name for name in distributed.WHOLE_ALONE if name in parts]
    if left_out:
        print(f"left out, as no process holds the whole network: {', '.join(left_out)}", flush=True)
    return {name: part for name, part in parts.items() if name not in left_out}


def effective(trainer: Trainer, settings: Settings) -> Settings:
    """What a step of the optimiser takes, over all processes; the rate is the configured one however many they are."""
    size, batches = settings["batch_size"], trainer.accumulate_grad_batches
    return {
        "processes": trainer.world_size,
        "nodes": trainer.num_nodes,
        "batch_size": size,
        "accumulated": batches,
        "effective_batch": size * batches * trainer.world_size,
        "lr": settings["optimizer"]["lr"],
    }
