"""The data that a checkpoint was trained on, or other data to use it with."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from emotion.checkpoints.load import LoadedCheckpoint, check_classes
from emotion.data.cache import LOCATIONS, locations, prepare
from emotion.data.datamodule import EmotionDataModule
from emotion.data.faces import MIXED, TRAINING, Faces
from emotion.data.names import class_key
from emotion.data.sources import select_source, synthetic_warning
from emotion.data.splits import NO_EXCLUSIONS, RowNumbers
from emotion.errors import UserError

DATA_VARIABLE = "EMOTION_DATA"
SUBSETS = ("auto", "train", "val", "test", "all")
NOT_TRAINING: Mapping[str, Any] = {"overfit": 0, "target": "majority", "augment": {}, "mixup": None}
"""Arguments of EmotionDataModule without what only training needs, such as transforms that are not installed here."""


def load_data(loaded: LoadedCheckpoint, cfg: DictConfig, *, some_classes: bool = False) -> EmotionDataModule:
    """Return the checkpoint's data, set up, with `data`, `labels` and `split` of a verb's config replacing its own.

    Without `data`, a folder named by `data_dir=` or `EMOTION_DATA` replaces the folder of its files. On other data the
    split keeps the parts that the data states: the checkpoint's exclusions and folds are of its own data. With
    `some_classes`, the data may have only some of the checkpoint's classes, and synonyms of their names.

    Raises:
        UserError: The data is missing, not in the folder that is named, or has other classes than the checkpoint.
    """
    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    arguments = {**loaded.data, **NOT_TRAINING, "cache_dir": settings["cache_dir"]}
    if settings.get("data") is None:
        arguments["source"] = _locate_source(loaded, cfg)
    else:
        source = select_source(settings["data"])
        if source.is_fallback:
            print(f"*** {synthetic_warning(settings['data'])} ***\n")
        arguments |= {"source": source.config, "mix": source.mix_percent}
    arguments |= {name: settings[name] for name in ("labels", "split") if settings.get(name) is not None}
    classes, labels = loaded.classifier.classes, arguments["labels"]
    if set(labels) == set(classes):
        arguments["labels"] = {name: labels[name] for name in classes}  # in the order of the network's outputs
    try:
        trained = loaded.data["source"]
        if settings.get("split") is None and arguments["source"] not in (trained, trained.get("source")):
            faces = prepare(arguments["source"], arguments["cache_dir"])
            if loaded.digest not in _digests(faces):
                arguments["split"] = _split_of_other_data(loaded.data["split"])
        data = EmotionDataModule(**arguments)
        data.setup()
    except UserError as error:
        if settings.get("data") is None and (named := named_folder(cfg)) and not _all_exist(arguments["source"]):
            location = next(locations(loaded.data["source"]), "no files")
            raise UserError(
                f"{error}\n{named} replaces the data of {loaded.path}, {location}. Name its folder, or the data in "
                f"another form: data=NAME."
            ) from error
        raise
    if not (some_classes and _has_some_classes(data, classes)):
        check_classes(loaded.path, classes, data.classes)
    return data


def _digests(faces: Faces) -> set[str]:
    return {faces.digest, *(component.digest for component in faces.components)}


def _split_of_other_data(split: Mapping[str, Any]) -> dict[str, Any]:
    """Return a split with the test set that other data states: the official one, or the run's without exclusions."""
    keeps_parts = split["_target_"].removeprefix("emotion.data.splits.") in ("stratified", "random")
    without_exclusions = {key: value for key, value in split.items() if key not in NO_EXCLUSIONS}
    return without_exclusions if keeps_parts else {"_target_": "emotion.data.splits.official"}


def _has_some_classes(data: EmotionDataModule, classes: Sequence[str]) -> bool:
    """Return whether the data has two or more of the classes, and neither others nor the rest merged into them."""
    of_data, of_checkpoint = {*map(class_key, data.classes)}, {*map(class_key, classes)}
    members = {class_key(str(member)) for members in data.hparams["labels"].values() for member in members}
    return len(of_data) > 1 and of_data <= of_checkpoint and not members & (of_checkpoint - of_data)


def named_folder(cfg: DictConfig) -> str | None:
    """Return how the user named the folder of the data: `data_dir=FOLDER` or `EMOTION_DATA=FOLDER`, else None."""
    if not OmegaConf.is_interpolation(cfg, "data_dir"):
        return f"data_dir={cfg.data_dir}"
    return f"{DATA_VARIABLE}={os.environ[DATA_VARIABLE]}" if DATA_VARIABLE in os.environ else None


def _locate_source(loaded: LoadedCheckpoint, cfg: DictConfig) -> Mapping[str, Any]:
    """Return the checkpoint's source in the folder that is named; without one, in `data_dir` if it is gone."""
    source: Mapping[str, Any] = loaded.data["source"]
    first, named = next(locations(source), None), named_folder(cfg)
    if first is None:  # generated
        if named and not named.startswith(DATA_VARIABLE):
            raise UserError(
                f"{loaded.path} was trained on generated faces ({source['_target_']}), so {named} has no effect. Name "
                f"the data, too: data=auto {named}."
            )
        return source
    reads_folder = source.get("source", source)["_target_"] == "emotion.data.readers.image_folder.read"
    is_folder = first.is_dir() or not (first.is_file() or (first.suffix and not reads_folder))
    moved = _move(source, first if is_folder else first.parent, Path(cfg.data_dir))
    return moved if named or (not _all_exist(source) and _all_exist(moved)) else source


def _all_exist(source: Mapping[str, Any]) -> bool:
    return all(path.exists() for path in locations(source))


def _move(source: Mapping[str, Any], old: Path, new: Path) -> dict[str, Any]:
    """Return a source whose locations inside the folder `old` are at the same place in `new`."""
    moved: dict[str, Any] = dict(source)
    for key, value in source.items():
        if isinstance(value, Mapping):
            moved[key] = _move(value, old, new)
        elif key in LOCATIONS and value is not None:
            path, root = Path(os.path.abspath(str(value))), Path(os.path.abspath(old))
            moved[key] = str(new / path.relative_to(root)) if path.is_relative_to(root) else value
    return moved


def choose_subset(subset: str, data: EmotionDataModule, checkpoints: Sequence[LoadedCheckpoint]) -> str:
    """Return `subset`; for auto test, or all (printed) for data without parts that no checkpoint was trained on."""
    if subset != "auto":
        return subset
    has_parts = not np.isin(data.faces.usage, (TRAINING, MIXED)).all()
    if has_parts or _digests(data.faces) & {loaded.digest for loaded in checkpoints}:
        return "test"
    print(f"{data.faces.source}: no test part, so all faces are used: subset=all")
    return "all"


def training_rows(
    loaded: LoadedCheckpoint, reader: Mapping[str, Any], faces: Faces, cache_dir: str | Path
) -> RowNumbers | None:
    """Return the numbers of the rows of `faces`, read by `reader`, on which the checkpoint was trained.

    None if it was trained neither on this source nor on the one whose labels it replaces.
    """
    if faces.digest == loaded.digest:
        source = dict(reader)
    elif faces.components and faces.components[0].digest == loaded.digest:
        source = reader["source"]
    else:
        return None
    data = EmotionDataModule(**{**loaded.data, **NOT_TRAINING, "source": source, "cache_dir": str(cache_dir)})
    data.setup()
    return data.split.train
