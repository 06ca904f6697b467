"""Every file of every group composes and builds; a config names nothing that its target does not take."""

import inspect
from pathlib import Path

import hydra.utils
import pytest
from omegaconf import OmegaConf

from emotion.building import ALLOWED, build
from emotion.cli import CONF
from emotion.errors import UserError
from tests.conftest import compose_config, options

GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())
CHOICES = [(group, choice) for group in GROUPS for choice in options(group)]
VERBS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "base")


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_resolves(group: str, choice: str) -> None:
    part = group == "callbacks" and choice != "default"
    cfg = compose_config("train", f"{group}={choice}", "run_dir=x")
    assert OmegaConf.to_container(cfg, resolve=True)
    assert not part or choice in cfg.callbacks


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_file_and_a_config(verb: str) -> None:
    assert (Path(hydra.utils.get_object("emotion.__file__")).parent / f"{verb}.py").is_file()
    compose_config(verb)


def targets(config: object) -> list[dict[str, object]]:
    if isinstance(config, dict):
        own = [config] if "_target_" in config else []
        return own + [found for value in config.values() for found in targets(value)]
    return []


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_targets_exist_and_take_every_key(group: str, choice: str) -> None:
    cfg = compose_config("train", f"{group}={choice}", "run_dir=x")
    for config in targets(OmegaConf.to_container(cfg, resolve=True)):
        target = str(config["_target_"])
        assert target.startswith(ALLOWED)
        parameters = inspect.signature(hydra.utils.get_object(target)).parameters
        routed = {"_target_", "interval"} if "interval" in config else {"_target_"}
        assert set(config) - routed <= set(parameters), target


def test_recipe_gives_way_to_the_command_line() -> None:
    cfg = compose_config(
        "train", "model=v4_attention", "labels=seven", "optimizer=sgd", "batch_size=8", "split=official"
    )
    assert len(cfg.labels) == 7
    assert cfg.optimizer._target_ == "torch.optim.SGD"
    assert cfg.batch_size == 8
    assert cfg.split._target_ == "emotion.data.splits.official"


def test_v4_alone_is_the_published_recipe() -> None:
    cfg = compose_config("train", "model=v4_attention", "run_dir=x")
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


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "torch.load", "subprocess.run", "pickle.loads"])
def test_a_config_can_build_nothing_but_parts(target: str) -> None:
    with pytest.raises(UserError, match=f"_target_ '{target}' is not among what a config may build"):
        build({"_target_": "emotion.losses.cross_entropy", "balanced": {"_target_": target}}, class_counts=[1, 2])


def test_a_setting_that_a_part_does_not_take_is_named() -> None:
    with pytest.raises(UserError, match=r"SGD was refused its settings: .*nestorov"):
        build({"_target_": "torch.optim.SGD", "nestorov": True}, [])


def test_a_part_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match=r"emotion.models.v5.V5 cannot be built"):
        build({"_target_": "emotion.models.v5.V5"})
