"""Portable checkpoints: weights in half precision as .safetensors, and a JSON description next to them.

Neither file can run code: there is no pickle, and the JSON may only name networks of conf/ or of `plugins=`.
"""

import hashlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from emotion.checkpoints import contents
from emotion.checkpoints.contents import CheckpointContents
from emotion.checkpoints.validate import check_settings
from emotion.config.compose import CONF
from emotion.config.instantiate import advise_plugin, plugins, targets
from emotion.errors import REFUSALS, UserError
from emotion.io.atomic import write_atomically, write_json
from emotion.io.bounded import read_json_object
from emotion.io.digests import file_digest

FORMAT = "emotion 1"
CONFIG = "config.json"  # the description's name on the Hub
NAMES = ("classes", "labels")
"""Entries that consist of class names, which may look like paths."""
LOCAL_URL = re.compile(r"\b(file://|sqlite:///)/[^,\]\s]*/")
"""An address of a file by an absolute path, up to the file's name."""


def write(weights: Path, description: Path, checkpoint: CheckpointContents, record: Mapping[str, Any] | None) -> None:
    """Write a checkpoint's weights and its description, which includes the run's record.

    Absolute paths are reduced to file names.
    """
    packed = save({name: _half(name, value) for name, value in checkpoint.state_dict.items()}, {"format": "pt"})
    entries = checkpoint.description() | {"record": record, "weights": hashlib.sha256(packed).hexdigest()}

    def write_both(temporary: Path) -> None:
        temporary.write_bytes(packed)
        write_json(description, {"format": FORMAT} | without_absolute_paths(entries))

    write_atomically(weights, write_both)  # a full disk leaves both files as they were


def read(weights: Path) -> CheckpointContents:
    """Read what `write` wrote; the tensors stay in half precision and are memory-mapped.

    Raises:
        UserError: A file is missing or damaged, or names a network that is not allowed.
    """
    entries = _read_entries(weights)
    try:
        if file_digest(weights) != entries.get("weights"):
            raise UserError(
                f"{weights} does not match the SHA-256 in {description_path(weights)}: it is damaged or belongs to "
                f"another description. Restore it from a copy."
            )
        state_dict = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{weights} cannot be read as safetensors ({error}). Check that it is complete.") from error
    return replace(_parse(weights, entries), state_dict=state_dict)


def read_description(weights: Path) -> CheckpointContents:
    """Read and check the description next to the weights, as `read` does."""
    return _parse(weights, _read_entries(weights))


def description_path(weights: Path) -> Path | None:
    """Return the description next to weights; None for weights of another origin."""
    candidates = (weights.with_suffix(".json"), weights.with_name(CONFIG))
    return next((path for path in candidates if path.is_file()), None)


def without_absolute_paths(content: Any) -> Any:  # noqa: ANN401
    """Reduce absolute paths to file names in nested lists and mappings, also in commands; names of classes stay."""
    if isinstance(content, Mapping):
        return {key: _without_paths_of(key, value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_absolute_paths(value) for value in content]
    if isinstance(content, str):
        return PurePath(content).name if PurePath(content).is_absolute() else LOCAL_URL.sub(r"\1", content)
    return content


def _without_paths_of(key: object, value: Any) -> Any:  # noqa: ANN401
    if key in NAMES:
        return value
    return _shorten_command(value) if key == "command" and isinstance(value, str) else without_absolute_paths(value)


def _read_entries(weights: Path) -> dict[str, Any]:
    path = description_path(weights)
    if path is None:
        raise UserError(
            f"{weights} has neither {weights.stem}.json nor {CONFIG} next to it; expected one of them, as python -m "
            f"emotion.export target=weights writes it."
        )
    entries = read_json_object(path)
    if entries.get("format") != FORMAT:
        raise UserError(
            f"{path} does not describe a classifier of this package: found format {entries.get('format')!r}, expected "
            f"{FORMAT!r}."
        )
    check_settings(path, entries)
    return entries


def _parse(weights: Path, entries: Mapping[str, Any]) -> CheckpointContents:
    try:
        checkpoint = contents.parse(entries)
    except REFUSALS as error:
        raise UserError(
            f"{description_path(weights)} does not describe a classifier of this package: found no valid {error}."
        ) from error
    for target in map(str, targets(checkpoint.hyper_parameters.get("model"))):  # no other part of them is built
        if target not in _conf_targets() and not target.startswith(plugins()):
            raise UserError(
                f"{description_path(weights)} names {target}, which is not part of this package; not "
                f"loaded.{advise_plugin(target)}"
            )
    return checkpoint


@cache
def _conf_targets() -> frozenset[str]:
    """Return every `_target_` in the files of conf/."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in CONF.rglob("*.yaml"))
    return frozenset(re.findall(r"_target_: *([\w.]+)", text))


def _half(name: str, value: Tensor) -> Tensor:
    """Convert a weight to float16 if it is in range; running statistics, which are few, stay in float32."""
    half = value.half()
    fits = value.dtype == torch.float32 and not name.rpartition(".")[2].startswith("running_") and half.isfinite().all()
    return (half if fits else value).contiguous()


def _shorten_command(command: str) -> str:
    """Reduce the absolute paths in a command line to file names; those of addresses on the web stay."""
    words = [re.sub(r"(^|[=\[,:])/(?!/)[^,\]]*/", r"\1", LOCAL_URL.sub(r"\1", word)) for word in shlex.split(command)]
    return shlex.join(words)
