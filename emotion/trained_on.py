"""Which faces of a source a checkpoint was trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emotion.checkpoints import Loaded
from emotion.data.datamodule import EmotionDataModule
from emotion.data.faces import Faces
from emotion.data.splits import RowNumbers


def training_rows(loaded: Loaded, reader: Mapping[str, Any], faces: Faces, cache_dir: str | Path) -> RowNumbers | None:
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
