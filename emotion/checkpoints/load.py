"""From a checkpoint of any kind to a classifier, and to what is known of its training.

A checkpoint is a run folder, a .ckpt file, weights that come with the package (by name), that were exported
(.safetensors) or that lie on the Hugging Face Hub (hub:owner/name).
"""

import math
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from emotion.checkpoints import checkpoint_io, portable
from emotion.checkpoints.locate import LAST_CHECKPOINT, SHIPPED, locate
from emotion.classifier import EmotionClassifier
from emotion.config.migrate import migrate
from emotion.data.sources import stored
from emotion.errors import REFUSALS, UserError
from emotion.io import bounded, digests

PREVIOUS_CHECKPOINT = LAST_CHECKPOINT.with_name(checkpoint_io.FORMER)
SETTINGS = ("hyper_parameters", "datamodule_hyper_parameters")
"""What a checkpoint describes its network and its data by."""


class Loaded(NamedTuple):
    """A checkpoint's classifier, ready to evaluate, and the data settings that it was trained with."""

    path: Path
    classifier: EmotionClassifier
    data: dict[str, Any]  # what EmotionDataModule was built with
    digest: str  # of the source that it was trained on
    epoch: int

    @property
    def stored(self) -> tuple[int, int]:
        """Side and channels of the faces that it was trained on, as their source stores them."""
        return stored(self.data["source"])


def load_checkpoint(source: str | Path) -> Loaded:
    """The classifier of a checkpoint, and what it was trained on.

    Raises:
        UserError: there is none, or it is not one of ours.
    """
    path = locate(source)
    content = read_checkpoint(path)
    try:
        settings, data, state = (content[name] for name in (*SETTINGS, "state_dict"))
        digest, epoch = str(content["EmotionDataModule"]["source"]), int(content["epoch"])
        with torch.device("meta"):  # without memory
            bounded.check_shapes(path, _built(path, settings).state_dict(), state)
        classifier = _built(path, settings)
        classifier.load_state_dict(state)
        bounded.check_finite(path, classifier.state_dict())
        if not 0 < classifier.temperature < math.inf:
            raise ValueError(f"its temperature is {classifier.temperature}, expected a number above 0")
        return Loaded(path, classifier.eval(), data, digest, epoch)
    except REFUSALS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path} is not a checkpoint of this package: {reason}. "
            f"Give a run folder or a .ckpt file that python -m emotion.train wrote."
        ) from error


def _built(path: Path, settings: dict[str, Any]) -> EmotionClassifier:
    try:
        return EmotionClassifier(**settings)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def set_temperature(path: Path, temperature: float) -> None:
    """Have a checkpoint hold the temperature that its classifier's probabilities are to have from now on."""
    content = read_checkpoint(path)
    content["hyper_parameters"]["temperature"] = temperature
    checkpoint_io.save(content, path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content.

    Raises:
        UserError: it cannot be read, or is something else.
    """
    if path.suffix == SHIPPED:
        content: object = portable.read(path)
    else:
        content = open_archive(path, "a checkpoint", "a .ckpt file that python -m emotion.train wrote")
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"{path} holds no network; expected a .ckpt file that python -m emotion.train wrote.")
    bounded.check_settings(path, [content.get(name) for name in SETTINGS])
    return content | {name: migrate(content[name]) for name in SETTINGS if name in content}


def open_archive(path: Path, kind: str, expected: str) -> object:
    """What torch.save wrote, read as data: nothing in it can run.

    Raises:
        UserError: it cannot be read, holds more than data, or is a checkpoint of ours that was changed since.
    """
    try:
        if sealed := digests.is_sealed(path):
            digests.check(path)
        bounded.check_archive(path)
        with warnings.catch_warnings(action="ignore"):  # of what it cannot read, which is an error besides
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except bounded.UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if isinstance(error, pickle.UnpicklingError):  # torch's words advise to run whatever is in it
            reason = "torch.save did not write it, or more than numbers and settings are in it"
        raise UserError(f"{path} cannot be read as {kind} ({reason}); expected {expected}. Is it whole?") from error
    if not sealed and isinstance(content, dict) and "datamodule_hyper_parameters" in content:
        digests.check(path)  # which says what is missing
    return content


def check_classes(path: Path, own: Sequence[str], data: Sequence[str]) -> None:
    """Refuse data whose classes are not a checkpoint's own, in its order.

    Raises:
        UserError: naming both.
    """
    if tuple(own) != tuple(data):
        raise UserError(
            f"{path} tells apart {', '.join(own)}; the data has {', '.join(data)}. "
            f"Choose the labels= that it was trained with, or another checkpoint."
        )
