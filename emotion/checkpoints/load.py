"""Load checkpoints of every kind.

A checkpoint is a run folder, a .ckpt file, the name of weights in the package, exported weights (.safetensors) or a
repository of the Hugging Face Hub (hub:owner/name).
"""

import dataclasses
import math
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from emotion.checkpoints import checkpoint_io, contents, portable
from emotion.checkpoints.contents import CheckpointContents
from emotion.checkpoints.locate import LAST_CHECKPOINT, PORTABLE_SUFFIX, locate
from emotion.checkpoints.validate import check_archive, check_finite, check_settings, check_shapes
from emotion.classifier import EmotionClassifier
from emotion.data.sources import stored_shape
from emotion.errors import REFUSALS, UserError, first_line
from emotion.io.bounded import READ_ERRORS
from emotion.io.digests import check_recorded_digest

PREVIOUS_CHECKPOINT = LAST_CHECKPOINT.with_name(checkpoint_io.PREVIOUS)
LOSS_PREFIX = "criterion."
EXPECTED = "a run folder or a .ckpt file that python -m emotion.train wrote"


class LoadedCheckpoint(NamedTuple):
    """The classifier of a checkpoint, in evaluation mode, and its training data."""

    path: Path
    classifier: EmotionClassifier
    data: dict[str, Any]  # arguments of EmotionDataModule
    data_state: dict[str, str]  # digests of the data `source` and of the `split`
    epoch: int

    @property
    def digest(self) -> str:
        """Digest of the data source."""
        return self.data_state["source"]

    @property
    def source_shape(self) -> tuple[int, int]:
        """Side in pixels and channels of the faces in the training data."""
        return stored_shape(self.data["source"])


def load_checkpoint(source: str | Path) -> LoadedCheckpoint:
    """Load the classifier of a checkpoint without its loss, and the settings of its training data.

    Raises:
        UserError: The checkpoint is missing, damaged or not of this package.
    """
    path = locate(source)
    checkpoint = read_checkpoint(path)
    try:
        weights = {name: value for name, value in checkpoint.state_dict.items() if not name.startswith(LOSS_PREFIX)}
        with torch.device("meta"):  # compare shapes before allocating memory
            expected = _instantiate(path, checkpoint.hyper_parameters).state_dict()
        check_shapes(path, expected, weights)
        classifier = _instantiate(path, checkpoint.hyper_parameters)
        classifier.load_state_dict(weights)
        check_finite(path, classifier.state_dict())
        _zero_denormals(classifier)
        if not 0 < classifier.temperature < math.inf:
            raise ValueError(f"its temperature is {classifier.temperature}, expected a positive number")
    except REFUSALS as error:
        raise _not_ours(path, error) from error
    data, state = checkpoint.data_hyper_parameters, checkpoint.data_state
    return LoadedCheckpoint(path, classifier.eval(), data, state, checkpoint.epoch)


def read_checkpoint(path: Path) -> CheckpointContents:
    """Read the content of a .ckpt or .safetensors file without building its network.

    Raises:
        UserError: The file cannot be read or is not a checkpoint of this package.
    """
    if path.suffix == PORTABLE_SUFFIX:
        return portable.read(path)
    entries = read_torch_file(path, "a checkpoint", EXPECTED)
    try:
        if not isinstance(entries, dict):
            raise TypeError(f"it holds a {type(entries).__name__}")
        check_settings(path, [entries[name] for name in (contents.HYPER_PARAMETERS, contents.DATA_HYPER_PARAMETERS)])
        return contents.parse(entries)
    except REFUSALS as error:
        raise _not_ours(path, error) from error


def read_torch_file(path: Path, kind: str, expected: str) -> object:
    """Read a file of torch.save as data; nothing in it can run.

    Raises:
        UserError: The file cannot be read, is damaged or contains more than data; the message names `kind`, what the
            file should be, and `expected`.
    """
    try:
        check_recorded_digest(path)
        check_archive(path)
        with warnings.catch_warnings(action="ignore"):  # about content that torch.load then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except READ_ERRORS as error:
        reason = _reason(error)
        if isinstance(error, pickle.UnpicklingError):  # torch's message suggests weights_only=False
            reason = "torch.save did not write it, or it holds more than tensors and settings"
        raise UserError(
            f"{path} cannot be read as {kind} ({reason}); expected {expected}. Check that it is complete."
        ) from error


def set_temperature(path: Path, temperature: float) -> None:
    """Store in a .ckpt file the temperature by which its classifier divides the logits."""
    checkpoint = read_checkpoint(path)
    settings = checkpoint.hyper_parameters | {"temperature": temperature}
    checkpoint_io.save_checkpoint(dataclasses.replace(checkpoint, hyper_parameters=settings).entries(), path)


def check_classes(
    path: Path,
    classes: Sequence[str],
    others: Sequence[str],
    owner: str = "the data has",
    advice: str = "Choose the labels= of its training, or another checkpoint.",
) -> None:
    """Raise UserError if the classes of data, or of another `owner`, differ from a checkpoint's in names or order."""
    if tuple(classes) != tuple(others):
        raise UserError(
            f"{path} was trained on the classes {', '.join(classes)}, but {owner} {', '.join(others)}. {advice}"
        )


def _instantiate(path: Path, hyper_parameters: dict[str, Any]) -> EmotionClassifier:
    try:
        return EmotionClassifier(**hyper_parameters | {"loss": None})  # which may not be installed here
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _zero_denormals(classifier: EmotionClassifier) -> None:
    """Set weights that decayed below 1e-38 to 0: with half of them, a processor takes a hundred times as long."""
    for tensor in classifier.state_dict().values():
        if tensor.is_floating_point():
            tensor.masked_fill_(tensor.abs() < torch.finfo(tensor.dtype).tiny, 0)


def _not_ours(path: Path, error: Exception) -> UserError:
    missing = f"it has no {error}" if isinstance(error, KeyError) else _reason(error)
    return UserError(f"{path} is not a checkpoint of this package: {missing}. Expected {EXPECTED}.")


def _reason(error: Exception) -> str:
    return first_line(error).partition(". This is an internal miniz error")[0]
