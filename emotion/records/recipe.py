"""Recipes: the settings that decide the result of a training, apart from chance."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import MISSING

from emotion.config.compose import flatten
from emotion.data.datamodule import SHUFFLED
from emotion.data.splits import NO_EXCLUSIONS
from emotion.records.run_folder import Run

KEYS = (
    "labels", "split", "sampler", "input", "augment", "model", "loss", "optimizer", "scheduler", "batch_size",
    "monitor", "overfit", "mixup", "distillation", "backbone_lr", "layer_decay", "target",
)  # fmt: skip
OTHER_TRAINER_KEYS = (
    "_target_", "accelerator", "precision", "strategy", "plugins", "log_every_n_steps", "num_sanity_val_steps",
    "default_root_dir", "enable_checkpointing", "enable_model_summary", "enable_progress_bar",
    "enable_autolog_hparams", "detect_anomaly", "profiler", "benchmark", "deterministic", "barebones",
)  # fmt: skip
"""Settings of the trainer about where it computes and what it shows; any other one is part of a recipe."""
OBSERVERS = (
    "best_checkpoint", "last_checkpoint", "learning_rates", "epoch_table", "progress_bar", "model_summary",
    "time_estimate", "graceful_stop", "tensorboard_pictures", "weight_statistics", "explanations", "pruning",
)  # fmt: skip
"""Callbacks that leave the training as it is; any other one is part of a recipe."""
DEFAULTS = {"sampler": SHUFFLED, "mixup": {}, "layer_decay": 1.0, "target": "majority"}
"""Defaults of settings that the configs of older runs lack."""


def recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a run's config that decides the result of its training, apart from the seed."""
    trainer = {key: value for key, value in config["trainer"].items() if key not in OTHER_TRAINER_KEYS}
    if isinstance(trainer.get("devices"), list):  # device numbers
        trainer["devices"] = len(trainer["devices"])
    settings = {key: config.get(key, DEFAULTS.get(key)) for key in KEYS}
    settings["model"] = {"weights": "random", **settings["model"]}
    settings["split"] = {**NO_EXCLUSIONS, **settings["split"]}
    callbacks = {name: callback for name, callback in config["callbacks"].items() if callback and name not in OBSERVERS}
    return settings | {"trainer": trainer, "callbacks": callbacks}


def recipe_differences(config: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Return the keys of the recipe that differ from `expected`, where a missing value (`???`) matches anything."""
    found, wanted = recipe(config), recipe(expected)
    return [key for key in wanted if not _matches(found[key], wanted[key])]


def setting_differences(config: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Return a line for each setting of the recipe that differs from `expected`, as in `recipe_differences`."""
    keys = recipe_differences(config, expected)
    found, wanted = (
        dict(flatten({key: value for key, value in recipe(own).items() if key in keys})) for own in (config, expected)
    )
    return [
        f"{name}: found {json.dumps(found.get(name))}, expected {json.dumps(wanted.get(name))}"
        for name in found | wanted
        if wanted.get(name) not in (MISSING, found.get(name))
    ]


def group_by_recipe(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs of one recipe on the same data, in the order of their first run; a repeated seed is a group alone."""
    groups: dict[str, dict[int, Run]] = {}
    for run in runs:
        key = _identity(run, run.record.config)
        is_repeated = run.record.seed in groups.get(key, {})
        groups.setdefault(str(run.folder) if is_repeated else key, {})[run.record.seed] = run
    return [list(group.values()) for group in groups.values()]


def group_by_folds(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs that differ only in their fold of split=kfold, one run of each fold in the order of folds.

    Repeated folds make up further groups.
    """
    groups: dict[tuple[str, int, int], dict[int, Run]] = {}
    repetitions = Counter[tuple[str, int, int]]()
    for run in runs:
        config = run.record.config
        if "fold" in config["split"]:
            without_fold = {**config, "split": config["split"] | {"fold": None}}
            fold, same = config["split"]["fold"], (_identity(run, without_fold), run.record.seed)
            groups.setdefault((*same, repetitions[*same, fold]), {})[fold] = run
            repetitions[*same, fold] += 1
    return [[group[fold] for fold in sorted(group)] for group in groups.values() if len(group) > 1]


def _identity(run: Run, config: Mapping[str, Any]) -> str:
    """Return the recipe of a config and the data of a run as text."""
    data = run.record.data
    mix = {key: data.get("mix", {}).get(key) for key in ("digest", "percent")}
    excluded = (data.get("exclusions") or {}).get("digest")
    detector = [config["data"]["detector"]] if config.get("data", {}).get("detector") else []
    return json.dumps([recipe(config), data["digest"], mix, excluded, *detector], sort_keys=True)


def _matches(found: object, expected: object) -> bool:
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(_matches(found[key], expected[key]) for key in expected)
    return expected in (MISSING, found)
