"""Migrate configs, records and checkpoints of former versions to the names of this one."""

from collections.abc import Mapping
from typing import Any

TARGETS = {
    "emotion.augment.": "emotion.data.transforms.augment.",
    "emotion.losses.": "emotion.optim.losses.",
    "emotion.schedules.": "emotion.optim.schedules.",
    "emotion.distillation.": "emotion.training.distillation.",
    "emotion.loggers.CsvLogger": "emotion.loggers.csv_logger.CsvLogger",
    "emotion.trackers.mlflow_tracker.": "emotion.loggers.mlflow_logger.",
    "emotion.trackers.wandb_tracker.": "emotion.loggers.wandb_logger.",
    "emotion.callbacks.time_estimate.": "emotion.callbacks.epoch_table.",
    "lightning.pytorch.callbacks.EarlyStopping": "emotion.callbacks.early_stopping.EarlyStopping",
    "emotion.explainers.lime_regions.": "emotion.explainers.lime.",
    "emotion.explainers.shap_values.": "emotion.explainers.shap.",
    "emotion.data.fer2013_csv.read": "emotion.data.readers.fer2013.read_csv",
    "emotion.data.icml_csv.read": "emotion.data.readers.fer2013.read_icml_csv",
    "emotion.data.ferplus.": "emotion.data.readers.ferplus.",
    "emotion.data.image_folder.": "emotion.data.readers.image_folder.",
    "emotion.data.path_list.": "emotion.data.readers.path_list.",
    "emotion.data.mixed.": "emotion.data.readers.concat.",
    "emotion.data.synthetic.": "emotion.data.readers.synthetic.",
    "emotion.data.sampling.": "emotion.data.dataloader.",
    "emotion.data.splits.swapped": "emotion.data.splits.swapped_test",
}
"""Former `_target_` names, or (ending in a dot) prefixes of them, and the current ones."""

KEYS = {
    "views": "tta",
    "every": "every_n_epochs",
    "trials": "n_trials",
    "startup": "n_startup_trials",
    "tried": "overrides",
    "clean": "deduplicated",
    "drawn": "initialized",
    "unknowing": "baselines",
    "truer_than_middle": "gain_over_center",
    "middle": "center",
    "explained": "explanations",
    "stand_in": "synthetic",
    "first_of": "candidates",
    "known_by": "required_paths",
    "otherwise": "fallback",
    "drop": "exclude",
    "drop_faults": "exclude_issues",
    "drop_from": "exclude_from",
    "dropped": "exclusions",
}
"""Former keys of configs and records, and the current ones; applied at any depth, but see `USER_NAMED`."""

USER_NAMED = {"labels", "classes", "f1", "augment", "callbacks", "logger", "candidates", "required_paths"}
"""Mappings whose keys are names that users choose, such as those of classes."""


def migrate(content: Any, *, rename: bool = True) -> Any:  # noqa: ANN401
    """Return a copy with the targets and, if `rename`, the keys of this version at any depth.

    Names that users choose and the arguments of targets outside this package are left unchanged.
    """
    if isinstance(content, list):
        return [migrate(value, rename=rename) for value in content]
    if not isinstance(content, Mapping):
        return content
    if "_target_" in content:
        rename = str(content["_target_"]).startswith("emotion.")
    migrated = {}
    for key, value in content.items():
        name = KEYS.get(key, key) if rename else key
        is_chosen = name in USER_NAMED
        migrated[name] = _target(value) if key == "_target_" else migrate(value, rename=rename and not is_chosen)
    return migrated


def _target(name: Any) -> Any:  # noqa: ANN401
    for former, current in TARGETS.items():
        if name == former or (isinstance(name, str) and former[-1] == "." and name.startswith(former)):
            return current + name.removeprefix(former)
    return name


def first_target(name: str) -> str:
    """Return the first name that a `_target_` had, which digests of data sources contain."""
    for former, current in TARGETS.items():
        if name == current or (current[-1] == "." and name.startswith(current)):
            return former + name.removeprefix(current)
    return name
