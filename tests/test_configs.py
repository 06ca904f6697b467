"""Every file of every group composes and builds; a config names nothing that its target does not take."""

import inspect
import re
from functools import cache
from pathlib import Path

import hydra.utils
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from emotion.config.compose import CONF, VERBS, compose
from emotion.config.instantiate import build, check_targets
from emotion.data.splits import NOTHING_DROPPED
from emotion.errors import UserError
from tests.conftest import BACKBONES, SYSTEMS, options

GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())
CHOICES = [(group, choice) for group in GROUPS for choice in options(group)]


@cache
def chosen(group: str, choice: str) -> DictConfig:
    if group == "method":
        return compose("explain", f"method={choice}", "checkpoint=RUN")
    if group == "detector":
        return compose(
            "predict", f"detector={choice}", "source=x", *(["detector.model=x"] if choice == "yunet" else ())
        )
    if group == "pruner":
        return compose("train", "sweep=tpe", f"pruner@study.pruner={choice}", "study.trial=0", "run_dir=x")
    trial = ["study.trial=0"] if choice == "tpe" else []
    return compose("train", f"{group}={choice}", "run_dir=x", *trial)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_resolves(group: str, choice: str) -> None:
    part = group == "callbacks" and choice not in ("default", "whole_length", "averaged", "transfer")
    cfg = chosen(group, choice)
    assert OmegaConf.to_container(cfg, resolve=True)
    assert not part or choice in cfg.callbacks


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_file_and_a_config(verb: str) -> None:
    assert (Path(hydra.utils.get_object("emotion.__file__")).parent / f"{verb}.py").is_file()
    compose(verb)


def targets(config: object) -> list[dict[str, object]]:
    if isinstance(config, dict):
        own = [config] if "_target_" in config else []
        return own + [found for value in config.values() for found in targets(value)]
    return []


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_targets_exist_and_take_every_key(group: str, choice: str) -> None:
    cfg = chosen(group, choice)
    check_targets(OmegaConf.to_container(cfg, resolve=True))
    for config in targets(OmegaConf.to_container(cfg, resolve=True)):
        target = str(config["_target_"])
        parameters = inspect.signature(hydra.utils.get_object(target)).parameters
        routed = {"_target_", "interval"} if "interval" in config else {"_target_", "weights", *NOTHING_DROPPED}
        assert set(config) - routed <= set(parameters), target


def test_recipe_gives_way_to_the_command_line() -> None:
    cfg = compose("train", "model=v4_attention", "labels=seven", "optimizer=sgd", "batch_size=8", "split=official")
    assert len(cfg.labels) == 7
    assert cfg.optimizer._target_ == "torch.optim.SGD"
    assert cfg.batch_size == 8
    assert cfg.split._target_ == "emotion.data.splits.official"


def test_v4_alone_is_the_published_recipe() -> None:
    cfg = compose("train", "model=v4_attention", "run_dir=x")
    assert list(cfg.labels) == ["happiness", "surprise", "sadness", "anger", "disgust", "fear"]
    assert (cfg.input.size, cfg.input.channels, cfg.input.mean[0], cfg.input.std[0]) == (64, 3, 0.5, 0.5)
    assert (cfg.optimizer._target_, cfg.optimizer.lr, cfg.optimizer.weight_decay) == ("torch.optim.Adam", 3e-4, 1e-4)
    assert (cfg.batch_size, cfg.trainer.max_epochs, cfg.callbacks.early_stopping.patience) == (32, 500, 10)
    assert (cfg.loss.balanced, cfg.loss.label_smoothing) == (True, 0.1)
    schedule = cfg.scheduler
    assert schedule._target_ == "torch.optim.lr_scheduler.ReduceLROnPlateau"
    assert (schedule.mode, schedule.factor, schedule.patience, schedule.min_lr) == ("max", 0.5, 5, 1e-6)
    assert cfg.monitor.metric == "val/acc"
    assert list(cfg.augment) == ["flip", "affine", "jitter", "blur", "erasing"]
    assert (cfg.augment.affine.degrees, cfg.augment.affine.translate, cfg.augment.erasing.scale) == (
        15,
        0.1,
        [0.02, 0.1],
    )
    assert (cfg.augment.jitter.brightness, cfg.augment.jitter.contrast, cfg.augment.jitter.saturation) == (
        0.2,
        0.2,
        0.1,
    )
    assert (cfg.split._target_, cfg.split.fraction) == ("emotion.data.splits.random", 0.2)


RECIPES = {  # of each document; what it leaves open is ours, as its file says. None: not there
    "attention_cnn": ("seven", 48, 1, "adam", 1e-3, 1e-4, 64, 50, "ReduceLROnPlateau", None, None),
    "baseline_cnn": ("seven", 48, 1, "adam", 1e-3, 1e-4, 64, 50, "ReduceLROnPlateau", None, None),
    "compact_cnn": ("four", 48, 3, "adam", 1e-3, 1e-4, 64, 50, "ReduceLROnPlateau", 10, None),
    "fast_cnn": ("seven", 40, 1, "muon", 0.04, 0.02, 128, 25, "linear", None, None),
    "improved_cnn": ("seven", 48, 1, "adam", 1e-3, 1e-4, 64, 50, "StepLR", 10, 1.0),
    "resnet_cbam": ("seven", 48, 1, "adam", 1e-3, 1e-4, 64, 50, "StepLR", 10, 1.0),
    "simple_cnn": ("seven", 48, 1, "adam", 1e-3, 0.0, 64, 30, None, None, None),
    "v1_cnn": ("six", 64, 3, "adam", 1e-4, 1e-4, 32, 500, None, 10, None),
    "v2_se": ("six", 64, 3, "adam", 1e-4, 1e-4, 32, 500, None, 10, None),
    "v4_attention": ("six", 64, 3, "adam", 3e-4, 1e-4, 32, 500, "ReduceLROnPlateau", 10, None),
}
SPLITS = {
    "attention_cnn": ("stratified", 0.15),
    "baseline_cnn": ("stratified", 0.15),
    "v1_cnn": ("random", 0.2),
    "v2_se": ("random", 0.2),
    "v4_attention": ("random", 0.2),
}
AUGMENTATION = {
    "attention_cnn": ["flip", "affine"],
    "baseline_cnn": ["flip", "affine"],
    "compact_cnn": ["flip", "affine"],
    "fast_cnn": ["flip", "affine", "jitter", "crop"],
    "improved_cnn": [],
    "resnet_cbam": [],
    "simple_cnn": [],
    "v1_cnn": ["flip", "affine"],
    "v2_se": ["flip", "affine"],
    "v4_attention": ["flip", "affine", "jitter", "blur", "erasing"],
}


@pytest.mark.parametrize("model", SYSTEMS)
def test_a_model_alone_is_its_published_recipe(model: str) -> None:
    cfg = compose("train", f"model={model}", "run_dir=x")
    stopping = cfg.callbacks.get("early_stopping")
    assert (
        next(name for name in options("labels") if compose("train", f"labels={name}").labels == cfg.labels),
        cfg.input.size,
        cfg.input.channels,
        cfg.optimizer._target_.rsplit(".", 1)[-1].lower(),
        cfg.optimizer.lr,
        cfg.optimizer.weight_decay,
        cfg.batch_size,
        cfg.trainer.max_epochs,
        cfg.scheduler._target_.rsplit(".", 1)[-1] if cfg.scheduler else None,
        stopping.patience if stopping else None,
        cfg.trainer.gradient_clip_val,
    ) == RECIPES[model]
    assert list(cfg.augment) == AUGMENTATION[model]
    split = (cfg.split._target_.rsplit(".", 1)[-1], cfg.split.get("fraction"))
    assert split == SPLITS.get(model, ("official", None))
    assert {*cfg.input.mean, *cfg.input.std} == {0.5}
    if "StepLR" in RECIPES[model]:
        assert cfg.scheduler.step_size == 20
    assert stopping is None or stopping.monitor == "val/acc"
    assert cfg.loss.balanced == (model in ("v1_cnn", "v2_se", "v4_attention"))


@pytest.mark.parametrize("model", [*BACKBONES, "timm_backbone"])
def test_a_backbone_alone_is_its_document_s_recipe(model: str) -> None:
    cfg = compose("train", f"model={model}", "run_dir=x")
    small = model == "resnet18"  # for a processor
    assert (cfg.input.size, cfg.input.channels, cfg.input.zoom) == (64 if small else 224, 3, 1.14)
    assert (list(cfg.input.mean), list(cfg.input.std)) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert (cfg.batch_size, cfg.trainer.max_epochs, cfg.freeze_epochs) == (64 if small else 32, 80, 3)
    assert (cfg.optimizer.lr, cfg.backbone_lr, cfg.optimizer.weight_decay) == (1e-3, 1e-4, 1e-4)
    assert (cfg.loss.label_smoothing, cfg.loss.balanced) == (0.05, 0.6)
    assert (cfg.mixup._target_, cfg.mixup.alpha) == ("torchvision.transforms.v2.MixUp", 0.4)
    assert (cfg.trainer.gradient_clip_val, cfg.callbacks.ema.decay) == (1.0, 0.998 if small else 0.999)
    assert (cfg.monitor.metric, cfg.callbacks.early_stopping.monitor) == ("val/macro_f1", "val/macro_f1")
    assert (cfg.callbacks.best_checkpoint.monitor, cfg.callbacks.early_stopping.patience) == ("val/macro_f1", 5)
    assert cfg.callbacks.staged_unfreezing.stages == {
        "warmup": {"train": "head", "epochs": 3},
        "finetune": {"train": "all", "epochs": None},
    }
    assert (cfg.scheduler._target_, cfg.scheduler.warmup_epochs) == ("emotion.optim.schedules.staged_cosine", 3)
    assert list(cfg.augment) == ["crop", "flip", "rotation", "jitter", "erasing"]
    assert (cfg.augment.crop.scale, cfg.augment.rotation.degrees) == ([0.75, 1.0], 15)
    assert cfg.model.weights == "pretrained"
    assert cfg.name == cfg.model.backbone
    assert model in (
        "timm_backbone",
        cfg.model.backbone,
        cfg.model.backbone.replace(".", "_").removesuffix("_jft_in1k"),
    )


def differing(*asked: list[str]) -> set[str]:
    """The top-level keys in which two training configs differ."""
    one, other = (compose("train", *overrides, "name=x", "run_dir=x") for overrides in asked)
    return {str(key) for key in one if one[key] != other[key]}


def test_attention_and_baseline_differ_in_their_network_alone() -> None:
    assert differing(["model=baseline_cnn"], ["model=attention_cnn"]) == {"model"}
    one = compose("train", "model=baseline_cnn")
    assert (one.split.fraction, one.augment.affine.degrees, one.augment.affine.get("translate")) == (0.15, 10, None)


PUBLISHED = [name for name in options("experiment") if compose("train", f"experiment={name}").published]
OURS = ["champion", "fast_cpu", "fast_cpu_4"]
"""Experiments around our own network, which have a mark to reach."""


@pytest.mark.parametrize("experiment", sorted({*PUBLISHED} - {*OURS}))
def test_an_experiment_is_a_system_beside_its_published_figures(experiment: str) -> None:
    assert differing([f"experiment={experiment}"], [f"model={experiment}"]) == {"published"}
    cfg = compose("train", f"experiment={experiment}")
    assert cfg.published.part in ("val", "test")
    assert 0 < cfg.published.accuracy < 1


@pytest.mark.parametrize("experiment", OURS)
def test_a_mark_of_ours_is_a_target_of_its_views(experiment: str) -> None:
    cfg = compose("train", f"experiment={experiment}")
    assert cfg.model._target_.endswith("FastCNN")
    assert (cfg.published.part, cfg.published.target, cfg.published.tta) == ("test", True, cfg.tta)


def test_the_champion_fits_in_twelve_megabytes_of_half_precision() -> None:
    cfg = compose("train", "experiment=champion")
    config = {name: value for name, value in cfg.model.items() if name != "weights"}
    net: torch.nn.Module = build(config, num_classes=7, in_channels=1, input_size=48)
    assert 2 * sum(parameter.numel() for parameter in net.parameters()) <= 12e6


def test_distill_is_the_baseline_with_a_teacher_on_the_official_split() -> None:
    assert differing(["experiment=distill"], ["model=baseline_cnn"]) == {"distillation", "split"}
    cfg = compose("train", "experiment=distill", "distillation.teacher=RUN", "model=simple_cnn")
    assert (cfg.name, cfg.distillation.teacher, cfg.published) == ("distill", "RUN", None)
    assert cfg.model._target_.endswith("SimpleCNN")


def test_make_published_runs_every_experiment_that_needs_no_more_said(project: Path) -> None:
    (sweep,) = re.findall(r"'(experiment=[^']+)'", (project / "Makefile").read_text())
    (override,) = OverridesParser.create().parse_overrides([sweep])
    composed = {name: compose("train", f"experiment={name}", "name=x", "run_dir=x") for name in options("experiment")}
    complete = [
        name
        for name, cfg in composed.items()
        if not OmegaConf.missing_keys(cfg) and cfg.model.weights in ("random", "pretrained") and "first_of" in cfg.data
    ]
    assert override.value().filter(options("experiment")) == complete
    assert set(PUBLISHED) <= set(complete)


def test_an_experiment_gives_way_to_the_command_line() -> None:
    cfg = compose("train", "experiment=attention_cnn", "labels=four", "augment=none", "callbacks=default")
    assert cfg.model._target_.endswith("AttentionCNN")
    assert len(cfg.labels) == 4
    assert not cfg.augment
    assert cfg.callbacks.early_stopping.patience == 10


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "torch.load", "subprocess.run", "pickle.loads"])
def test_a_config_can_build_nothing_but_parts(target: str) -> None:
    with pytest.raises(UserError, match=f"_target_ '{target}' is not among what a config may build"):
        build({"_target_": "emotion.optim.losses.cross_entropy", "balanced": {"_target_": target}}, class_counts=[1, 2])


def test_a_setting_that_a_part_does_not_take_is_named() -> None:
    with pytest.raises(UserError, match=r"SGD was refused its settings: .*nestorov"):
        build({"_target_": "torch.optim.SGD", "nestorov": True}, [])


def test_a_part_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match=r"_target_ emotion.models.v5.V5 is not there"):
        build({"_target_": "emotion.models.v5.V5"})
