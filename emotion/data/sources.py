"""Selection of the data source of a run from its `data` config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from emotion.data.cache import locations
from emotion.data.discovery import FORMS, Found, describe, discover, near_misses
from emotion.errors import UserError

Config = Mapping[str, Any]

DEFAULT_FOLDER = Path("data")
"""Of conf/base.yaml; synthetic faces replace data that is missing there, and nowhere else."""


class SelectedSource(NamedTuple):
    """The source that a `data` config selects."""

    config: dict[str, Any]  # the reader function as _target_, and its arguments
    is_fallback: bool  # whether synthetic faces replace data that was not found
    mix_percent: float  # upper limit of rows added to training from a second source, 0 without one


def select_source(data: Config) -> SelectedSource:
    """Return the source that `data` describes.

    data=auto selects the data in its folder, or the fallback if no folder was named. `data.mix` adds a second source.

    Raises:
        UserError: The folder of data=auto has no data that can be read, but was named or has files that resemble it;
            or the percentage of a second source is out of range.
    """
    mix = data.get("mix")
    config, is_fallback = {key: value for key, value in data.items() if key != "mix"}, False
    if "candidates" in data:
        folder = _folder(data)
        found = next(discover(folder), None)
        if found:
            config = {**data["candidates"][found.kind], "path": str(found.path)}
        elif folder != DEFAULT_FOLDER or near_misses(folder):
            raise UserError(f"{describe(folder)} Expected {FORMS}. Set its location: data_dir=FOLDER.")
        else:
            config, is_fallback = dict(data["fallback"]), True
    if not mix:
        return SelectedSource(config, is_fallback, 0)
    percent = mix["percent"]
    if not isinstance(percent, int | float) or not 0 <= percent <= 100:
        raise UserError(f"data.mix.percent={percent}: expected 0 to 100 percent of each class's training rows.")
    combined = {"_target_": "emotion.data.readers.concat.read", "source": config, "extra": dict(mix["source"])}
    return SelectedSource(combined, is_fallback, percent)


def check_data(cfg: DictConfig) -> None:
    """Check the place of a verb's data before libraries load.

    Raises:
        UserError: data=auto finds nothing in its folder that can be read, or `data_dir` was named and does not exist.
    """
    data: dict[str, Any] = OmegaConf.to_container(cfg.data, resolve=True) if cfg.get("data") else {}  # type: ignore[assignment]
    if "candidates" in data:
        select_source(data)
        return
    is_named = not OmegaConf.is_interpolation(cfg, "data_dir")
    files = list(locations(data))
    is_missing = not data or (bool(files) and not any(path.exists() for path in files))
    if is_named and is_missing and not Path(cfg.data_dir).exists():
        raise UserError(f"data_dir={cfg.data_dir} does not exist in {Path.cwd()}; expected the folder of the data.")


def stored_shape(source: Config) -> tuple[int, int]:
    """Return the side in pixels and the channels of the faces that a source config yields."""
    while isinstance(source.get("source"), Mapping):  # composed sources take the shape of their main one
        source = source["source"]
    return int(source.get("size", 48)), int(source.get("channels", 1))


def synthetic_warning(data: Config) -> str:
    """Return the message of a verb that uses synthetic faces because FER2013 was not found."""
    return (
        f"FER2013 was not found in {_folder(data)}/; SYNTHETIC faces are used instead. Results on them say nothing "
        f"about real faces. To use FER2013: data_dir=FOLDER or EMOTION_DATA=FOLDER."
    )


def other_forms(data: Config) -> list[Found]:
    """Return what data=auto found besides the source that it selects."""
    return list(discover(_folder(data)))[1:] if "candidates" in data else []


def _folder(data: Config) -> Path:
    return Path(data["candidates"]["image_folder"]["path"])
