"""The data that a checkpoint was trained with, or other data in its place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emotion import checkpoints
from emotion.checkpoints import Loaded
from emotion.data.datamodule import EmotionDataModule
from emotion.data.sources import locate, not_found


def data_of(loaded: Loaded, settings: Mapping[str, Any]) -> EmotionDataModule:
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
    checkpoints.check_classes(loaded.path, loaded.classifier.classes, data.classes)
    return data
