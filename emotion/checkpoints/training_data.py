"""The data that a checkpoint was trained with, or other data in its place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emotion.checkpoints.load import LoadedCheckpoint, check_classes
from emotion.data.datamodule import EmotionDataModule
from emotion.data.faces import Faces
from emotion.data.sources import locate, not_found
from emotion.data.splits import RowNumbers


def load_data(loaded: LoadedCheckpoint, settings: Mapping[str, Any]) -> EmotionDataModule:
    """The checkpoint's own data, with `settings["data"]`, `["labels"]` and `["split"]` where those are given, set up.

    Raises:
        UserError: the data is missing, or has other classes than the checkpoint.
    """
    asked = dict(loaded.data) | {"cache_dir": settings["cache_dir"], "overfit": 0, "target": "majority"}
    own = Path(str(asked["source"].get("path", "")))
    if not own.exists() and (Path(settings["data_dir"]) / own.name).exists():  # of a run in another folder
        asked["source"] = asked["source"] | {"path": str(Path(settings["data_dir"]) / own.name)}
    if "data" in settings:
        source = locate(settings["data"])
        if source.stand_in:
            print(f"*** {not_found(settings['data'])} ***\n")
        asked["source"] = source.reader
    asked |= {name: settings[name] for name in ("labels", "split") if name in settings}
    data = EmotionDataModule(**asked)
    data.setup()
    check_classes(loaded.path, loaded.classifier.classes, data.classes)
    return data


def training_rows(
    loaded: LoadedCheckpoint, reader: Mapping[str, Any], faces: Faces, cache_dir: str | Path
) -> RowNumbers | None:
    """The rows of `faces`, as `reader` reads them, that the checkpoint's own labels and split train on.

    None where it was trained neither on this source nor on the one that this source puts other labels on.
    """
    if faces.digest == loaded.digest:
        source = dict(reader)
    elif faces.parts and faces.parts[0].digest == loaded.digest:
        source = reader["source"]
    else:
        return None
    own = EmotionDataModule(
        **loaded.data | {"source": source, "cache_dir": str(cache_dir), "overfit": 0, "target": "majority"}
    )
    own.setup()
    return own.split.train
