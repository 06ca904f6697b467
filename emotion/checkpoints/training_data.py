"""The data that a checkpoint was trained on, or other data to use it with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emotion.checkpoints.load import LoadedCheckpoint, check_classes
from emotion.data.datamodule import EmotionDataModule
from emotion.data.faces import Faces
from emotion.data.sources import select_source, synthetic_warning
from emotion.data.splits import RowNumbers


def load_data(loaded: LoadedCheckpoint, settings: Mapping[str, Any]) -> EmotionDataModule:
    """Return the checkpoint's data, set up, with `data`, `labels` and `split` of `settings` replacing its own.

    Raises:
        UserError: The data is missing or has other classes than the checkpoint.
    """
    arguments = dict(loaded.data) | {"cache_dir": settings["cache_dir"], "overfit": 0, "target": "majority"}
    path = Path(str(arguments["source"].get("path", "")))
    moved = Path(settings["data_dir"]) / path.name
    if not path.exists() and moved.exists():
        arguments["source"] = arguments["source"] | {"path": str(moved)}
    if "data" in settings:
        source = select_source(settings["data"])
        if source.is_synthetic:
            print(f"*** {synthetic_warning(settings['data'])} ***\n")
        arguments["source"] = source.config
    arguments |= {name: settings[name] for name in ("labels", "split") if name in settings}
    data = EmotionDataModule(**arguments)
    data.setup()
    check_classes(loaded.path, loaded.classifier.classes, data.classes)
    return data


def training_rows(
    loaded: LoadedCheckpoint, reader: Mapping[str, Any], faces: Faces, cache_dir: str | Path
) -> RowNumbers | None:
    """Return the rows of `faces` that the checkpoint's labels and split assign to training.

    Args:
        loaded: The checkpoint.
        reader: Config of the reader that read `faces`.
        faces: The data to look in.
        cache_dir: Folder of prepared data.

    Returns:
        Row numbers; None if the checkpoint was trained neither on this source nor on the one whose labels it replaces.
    """
    if faces.digest == loaded.digest:
        source = dict(reader)
    elif faces.components and faces.components[0].digest == loaded.digest:
        source = reader["source"]
    else:
        return None
    own = EmotionDataModule(
        **loaded.data | {"source": source, "cache_dir": str(cache_dir), "overfit": 0, "target": "majority"}
    )
    own.setup()
    return own.split.train
