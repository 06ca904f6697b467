"""Every config composes, and names only targets that exist and take its keys."""

import dataclasses
import inspect
import re
from functools import cache
from itertools import zip_longest
from pathlib import Path

import hydra.utils
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from emotion.config.compose import CONF, VERBS, compose
from emotion.config.instantiate import check_targets, instantiate
from emotion.data.splits import NO_EXCLUSIONS
from emotion.errors import UserError
from emotion.training.config import TrainConfig
from tests.conftest import BACKBONES, options

GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())
CHOICES = [(group, choice) for group in GROUPS for choice in options(group)]
ALONE = ("explainer", "detector", "pruner", "hydra", "model", "experiment", "sweep")
"""Groups of other configs than a training's, or that change other groups' settings."""
TOGETHER = [
    [(group, choice) for group, choice in choices if choice]
    for groups in [[group for group in GROUPS if group not in ALONE]]
    for row in zip_longest(*map(options, groups), fillvalue="")
    for choices in [zip(groups, row, strict=True)]
]
"""Every choice once, in as few configs as the largest group has choices."""


@cache
def train_config(*overrides: str) -> DictConfig:
    """A composed training config, not to be changed."""
    return compose("train", *overrides, "run_dir=x")


def chosen(choices: list[tuple[str, str]]) -> DictConfig:
    group, choice = choices[0]
    if group == "explainer":
        return compose("explain", f"explainer={choice}", "checkpoint=RUN")
    if group == "detector":
        missing = OmegaConf.missing_keys(OmegaConf.load(CONF / f"detector/{choice}.yaml"))
        return compose("predict", f"detector={choice}", "source=x", *(f"detector.{key}=x" for key in missing))
    if group == "pruner":
        return train_config("sweep=tpe", f"pruner@study.pruner={choice}", "study.trial=0")
    is_search = group == "sweep" and "study" in OmegaConf.load(CONF / f"sweep/{choice}.yaml")
    return train_config(*map("=".join, choices), *(["study.trial=0"] if is_search else []))


def configs_with_target(config: object) -> list[dict[str, object]]:
    if isinstance(config, dict):
        own = [config] if "_target_" in config else []
        return own + [found for value in config.values() for found in configs_with_target(value)]
    return []


@pytest.mark.parametrize(
    "choices",
    [
        *TOGETHER,
        *([one] for one in CHOICES if one[0] in ALONE),
        *(pytest.param([one], marks=pytest.mark.exhaustive) for one in CHOICES if one[0] not in ALONE),
    ],
    ids=lambda choices: " ".join(map("=".join, choices)),
)
def test_every_choice_composes_and_its_targets_take_every_key(choices: list[tuple[str, str]]) -> None:
    cfg = chosen(choices)
    config = OmegaConf.to_container(cfg, resolve=True)
    assert config
    callbacks = dict(choices).get("callbacks", "none")
    assert callbacks in ("default", "no_early_stopping", "none", "transfer", *cfg.get("callbacks", ()))
    check_targets(config)
    for part in configs_with_target(config):
        target = str(part["_target_"])
        parameters = inspect.signature(hydra.utils.get_object(target)).parameters
        other = {"_target_", "interval"} if "interval" in part else {"_target_", "weights", *NO_EXCLUSIONS}
        assert set(part) - other <= set(parameters), target


def test_the_typed_config_has_the_settings_of_the_file() -> None:
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert fields == set(train_config())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_file_and_a_config(verb: str) -> None:
    assert (Path(hydra.utils.get_object("emotion.__file__")).parent / f"{verb}.py").is_file()
    compose(verb)


def test_the_command_line_overrides_a_recipe() -> None:
    cfg = compose("train", "model=v4_attention", "labels=seven", "optimizer=sgd", "batch_size=8", "split=official")
    assert len(cfg.labels) == 7
    assert cfg.optimizer._target_ == "torch.optim.SGD"
    assert cfg.batch_size == 8
    assert cfg.split._target_ == "emotion.data.splits.official"


def test_v4_is_its_published_recipe() -> None:
    cfg = train_config("model=v4_attention")
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


RECIPES = {  # of each document, our choice where it says nothing (see its file); None: not used
    "attention_cnn": ("seven", 48, 1, "adam", 1e-3, 1e-4, 64, 50, "ReduceLROnPlateau", None, None),
    "baseline_cnn": ("seven", 48, 1, "adam", 1e-3, 1e-4, 64, 50, "ReduceLROnPlateau", None, None),
    "compact_cnn": ("four", 48, 3, "adam", 1e-3, 1e-4, 64, 500, "ReduceLROnPlateau", 10, None),
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


@pytest.mark.parametrize("model", RECIPES)
def test_a_model_is_its_published_recipe(model: str) -> None:
    cfg = train_config(f"model={model}")
    stopping = cfg.callbacks.get("early_stopping")
    assert (
        next(name for name in options("labels") if train_config(f"labels={name}").labels == cfg.labels),
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


CPU_SIDES = {"resnet18": 64, "efficientnet_lite0": 112}


@pytest.mark.parametrize("model", [*BACKBONES, "timm_backbone"])
def test_a_backbone_is_the_recipe_of_its_document(model: str) -> None:
    cfg = train_config(f"model={model}")
    small, lite = model in CPU_SIDES, model == "efficientnet_lite0"
    assert (cfg.input.size, cfg.input.channels, cfg.input.zoom) == (CPU_SIDES.get(model, 224), 3, 1.14)
    imagenet = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert (list(cfg.input.mean), list(cfg.input.std)) == (([0.498] * 3, [0.502] * 3) if lite else imagenet)
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
    assert cfg.name == ("efficientnet_lite0" if lite else cfg.model.backbone)
    assert model in (
        "timm_backbone",
        cfg.model.backbone,
        cfg.model.backbone.removeprefix("tf_"),
        cfg.model.backbone.replace(".", "_").removesuffix("_jft_in1k"),
    )


@pytest.mark.parametrize("model", options("model"))
def test_an_input_replaces_that_of_the_recipe(model: str) -> None:
    assert train_config(f"model={model}", "input=grey48").input == OmegaConf.load(CONF / "input/grey48.yaml")


def differing(first: str, second: str) -> set[str]:
    """The top-level keys in which two training configs differ."""
    one, other = (train_config(override, "name=x") for override in (first, second))
    return {str(key) for key in one if one[key] != other[key]}


def test_attention_and_baseline_differ_in_their_network_only() -> None:
    assert differing("model=baseline_cnn", "model=attention_cnn") == {"model"}
    one = train_config("model=baseline_cnn", "name=x")
    assert (one.split.fraction, one.augment.affine.degrees, one.augment.affine.get("translate")) == (0.15, 10, None)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_another_optimizer_has_no_setting_of_the_recipes_own(optimizer: str) -> None:
    fast, other = (
        compose("train", f"model={model}", f"optimizer={optimizer}") for model in ("fast_cnn", "v4_attention")
    )
    assert fast.optimizer.keys() == other.optimizer.keys()


PUBLISHED = [
    name
    for name in options("experiment")
    if re.search(r"^published:(?! null)", (CONF / f"experiment/{name}.yaml").read_text(), re.M)
]
OURS = ["cpu_best", "fast_cpu", "fast_cpu_4", "ferplus_net"]
"""Experiments with our own network and a target accuracy."""
ADAPTED = {
    "compact_distilled": {"distillation", "augment", "optimizer", "scheduler", "callbacks", "trainer"},
    "efficientnet_lite0": {"input", "backbone_lr", "freeze_epochs", "trainer", "compile", "scheduler", "callbacks"},
}
"""Published networks with a target of our own, and what differs from their published recipe."""


@pytest.mark.parametrize("experiment", sorted({*PUBLISHED} - {*OURS}))
def test_an_experiment_is_a_model_with_its_published_results(experiment: str) -> None:
    model = experiment.replace("_distilled", "_cnn")
    assert differing(f"experiment={experiment}", f"model={model}") == {"published", *ADAPTED.get(experiment, ())}
    cfg = train_config(f"experiment={experiment}", "name=x")
    assert cfg.published.part in ("val", "test")
    assert 0 < cfg.published.accuracy < 1


@pytest.mark.parametrize("experiment", OURS)
def test_our_target_is_for_test_with_the_runs_tta(experiment: str) -> None:
    cfg = train_config(f"experiment={experiment}", "name=x")
    assert cfg.model._target_.endswith("FastCNN")
    assert (cfg.published.part, cfg.published.target, cfg.published.tta) == ("test", True, cfg.tta)


def test_cpu_best_takes_at_most_12_mb_in_half_precision() -> None:
    cfg = train_config("experiment=cpu_best", "name=x")
    config = {name: value for name, value in cfg.model.items() if name != "weights"}
    net: torch.nn.Module = instantiate(config, num_classes=7, in_channels=1, input_size=cfg.input.size)
    assert 2 * sum(parameter.numel() for parameter in net.parameters()) <= 12e6


def test_distill_is_the_baseline_with_a_teacher_on_the_official_split() -> None:
    assert differing("experiment=distill", "model=baseline_cnn") == {"distillation", "split"}
    cfg = compose("train", "experiment=distill", "distillation.teacher=RUN", "model=simple_cnn")
    assert (cfg.name, cfg.distillation.teacher, cfg.published) == ("distill", "RUN", None)
    assert cfg.model._target_.endswith("SimpleCNN")


def test_the_distilled_networks_differ_from_their_teachers_as_stated() -> None:
    assert differing("experiment=ferplus_net", "experiment=ferplus_distilled") == {"model", "trainer", "distillation"}
    assert differing("experiment=ferplus_distilled", "experiment=ferplus_small") == {"model", "published"}
    changed = {"model", "augment", "mixup", "callbacks", "distillation", "trainer", "published"}
    assert differing("experiment=cpu_best", "experiment=fast_distilled") == changed
    changed = {"model", "augment", "distillation", "optimizer", "trainer"}
    assert differing("experiment=fast_distilled", "experiment=fast_robust") == changed
    for name in ("fast_distilled", "fast_robust", "ferplus_distilled", "ferplus_small"):
        assert compose("train", f"experiment={name}", "distillation.teacher=RUN").name == name


def test_make_published_runs_every_complete_experiment(project: Path) -> None:
    (sweep,) = re.findall(r"'(experiment=[^']+)'", (project / "Makefile").read_text())
    (override,) = OverridesParser.create().parse_overrides([sweep])
    composed = {name: train_config(f"experiment={name}", "name=x") for name in options("experiment")}
    complete = [
        name
        for name, cfg in composed.items()
        if not OmegaConf.missing_keys(cfg)
        and name != "first_run"  # a stand-in where there is no data
        and cfg.model.weights in ("random", "pretrained")
        and "candidates" in cfg.data
    ]
    assert override.value().filter(options("experiment")) == complete
    assert {*PUBLISHED} - {*OURS, *ADAPTED} <= {*complete}


def test_the_command_line_overrides_an_experiment() -> None:
    cfg = compose("train", "experiment=attention_cnn", "labels=four", "augment=none", "callbacks=default")
    assert cfg.model._target_.endswith("AttentionCNN")
    assert len(cfg.labels) == 4
    assert not cfg.augment
    assert cfg.callbacks.early_stopping.patience == 10


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "torch.load", "subprocess.run", "pickle.loads"])
def test_a_config_can_only_instantiate_allowed_targets(target: str) -> None:
    with pytest.raises(UserError, match=f"_target_ '{target}' is not allowed"):
        instantiate(
            {"_target_": "emotion.optim.losses.cross_entropy", "balanced": {"_target_": target}}, class_counts=[1, 2]
        )


def test_an_unknown_argument_is_named() -> None:
    with pytest.raises(UserError, match=r"SGD refuses its arguments: .*nestorov"):
        instantiate({"_target_": "torch.optim.SGD", "nestorov": True}, [])


def test_a_missing_target_is_named() -> None:
    with pytest.raises(UserError, match=r"_target_ emotion.models.v5.V5: emotion.models has no v5"):
        instantiate({"_target_": "emotion.models.v5.V5"})


@pytest.mark.parametrize("verb", VERBS)
def test_several_runs_of_one_command_are_in_outputs(verb: str) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose(verb, return_hydra_config=True)
    assert OmegaConf.to_container(config.hydra.sweep)["dir"].startswith("outputs/")
