"""Trained classifiers as they travel: weights in half precision as .safetensors, the rest beside them as JSON.

Nothing in either file can run: there is no pickle, and the JSON may name only the parts that conf/ itself names.
"""

import hashlib
import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from emotion.config.compose import CONF
from emotion.config.instantiate import targets
from emotion.config.migrate import migrate
from emotion.errors import UserError
from emotion.io import digests
from emotion.io.atomic import write_atomically
from emotion.io.bounded import check_settings, json_of

FORMAT = "emotion 1"
CONFIG = "config.json"  # beside weights of another name, as the Hub has it
KEPT = ("hyper_parameters", "datamodule_hyper_parameters", "EmotionDataModule", "epoch")


def write(weights: Path, description: Path, content: Mapping[str, Any], record: Mapping[str, Any] | None) -> None:
    """A checkpoint's content as two files, its run's record among the description.

    Places on this machine are cut down to the names of files.
    """
    state = {name: _halved(name, value) for name, value in content["state_dict"].items()}
    packed = save(state, {"format": "pt"})
    told = {name: content[name] for name in KEPT} | {"record": record, "weights": hashlib.sha256(packed).hexdigest()}
    write_atomically(weights, lambda temporary: temporary.write_bytes(packed))
    digests.write_json(description, {"format": FORMAT} | without_places(told))


def read(weights: Path) -> dict[str, Any]:
    """What `write` was given, as a checkpoint's content, and the `record`; the numbers in half precision yet.

    They stay on the disk until a network takes them over.

    Raises:
        UserError: one of the two files is missing or not what `write` makes, or names a part that conf/ does not.
    """
    told = description(weights)
    try:
        if digests.digest_of(weights) != told.get("weights"):
            raise UserError(
                f"{weights} is not what {beside(weights)} describes: damaged, or another's. {digests.RESTORE}"
            )
        state = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{weights} cannot be read as safetensors ({error}). Is it whole?") from error
    return told | {"state_dict": state}


def description(weights: Path) -> dict[str, Any]:
    """What stands beside the weights, checked.

    Raises:
        UserError: see `read`.
    """
    path = beside(weights)
    if path is None:
        raise UserError(
            f"{weights} has neither {weights.stem}.json nor {CONFIG} beside it; expected one, as python -m "
            f"emotion.export target=weights writes it."
        )
    try:
        told = json_of(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}). Is it whole?") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT or not all(key in told for key in KEPT):
        found = told.get("format") if isinstance(told, dict) else type(told).__name__
        raise UserError(f"{path} describes no classifier of ours: found format {found!r}, expected {FORMAT!r}.")
    told = migrate(digests.opened(path, told))
    check_settings(path, told)
    if unknown := [target for target in targets({key: told[key] for key in KEPT}) if target not in _own()]:
        raise UserError(f"{path} names {', '.join(map(str, unknown))}, which is no part of this package; not loaded.")
    return dict(told)


def beside(weights: Path) -> Path | None:
    """The description of weights of ours; None where they are somebody else's."""
    choices = (weights.with_suffix(".json"), weights.with_name(CONFIG))
    return next((path for path in choices if path.is_file()), None)


@cache
def _own() -> frozenset[str]:
    """Every `_target_` that a file of conf/ names."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in CONF.rglob("*.yaml"))
    return frozenset(re.findall(r"_target_: *([\w.]+)", text))


def _halved(name: str, value: Tensor) -> Tensor:
    """Weights in half precision where they fit; running means and variances, which are few, as they are."""
    half = value.half()
    fits = value.dtype == torch.float32 and not name.rpartition(".")[2].startswith("running_") and half.isfinite().all()
    return (half if fits else value).contiguous()


def without_places(told: Any) -> Any:  # noqa: ANN401
    """The same with absolute paths cut down to their last part, in lists, mappings and command lines too."""
    if isinstance(told, Mapping):
        return {key: without_places(value) for key, value in told.items()}
    if isinstance(told, list | tuple):
        return [without_places(value) for value in told]
    return _without_place(told) if isinstance(told, str) else told


def _without_place(text: str) -> str:
    if PurePath(text).is_absolute():
        return PurePath(text).name
    if not re.search(r"(^|[\s='\"\[,:])/", text):
        return text
    try:
        words = shlex.split(text)
    except ValueError:  # no command line
        words = text.split()
    return shlex.join(re.sub(r"(^|[=\[,:])/[^,\]]*/", r"\1", word) for word in words)
