"""Selection of the data source of a run from its `data` config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

Config = Mapping[str, Any]


class SelectedSource(NamedTuple):
    """The source that a `data` config selects."""

    config: dict[str, Any]  # the reader function as _target_, and its arguments
    is_synthetic: bool  # whether synthetic faces replace data that was not found
    mix_percent: float  # upper limit of rows added to training from a second source, 0 without one


def select_source(data: Config) -> SelectedSource:
    """Return the source that `data` describes.

    data=auto selects the first candidate whose required path exists, else the fallback. `data.mix` adds a second one.
    """
    mix = data.get("mix")
    config, is_synthetic = {key: value for key, value in data.items() if key != "mix"}, False
    if "candidates" in data:
        found = [name for name in data["candidates"] if Path(data["required_paths"][name]).exists()]
        config, is_synthetic = dict(data["candidates"][found[0]] if found else data["fallback"]), not found
    if not mix:
        return SelectedSource(config, is_synthetic, 0)
    combined = {"_target_": "emotion.data.readers.concat.read", "source": config, "extra": dict(mix["source"])}
    return SelectedSource(combined, is_synthetic, mix["percent"])


def stored_shape(source: Config) -> tuple[int, int]:
    """Return the side in pixels and the channels of the faces that a source config yields."""
    while isinstance(source.get("source"), Mapping):  # composed sources take the shape of their main one
        source = source["source"]
    return int(source.get("size", 48)), int(source.get("channels", 1))


def synthetic_warning(data: Config) -> str:
    """Return the message for a run on synthetic faces because FER2013 was not found."""
    paths = ", ".join(str(path) for path in data["required_paths"].values())
    return (
        f"FER2013 was not found ({paths}); this run uses SYNTHETIC faces. Its results say nothing about real faces. "
        f"To use FER2013: data_dir=FOLDER or EMOTION_DATA=FOLDER."
    )
