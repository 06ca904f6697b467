"""Ensembles of classifiers that predict the mean of their probabilities."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emotion.checkpoints.load import LoadedCheckpoint, check_classes, load_checkpoint
from emotion.checkpoints.locate import locate_all
from emotion.classifier import EmotionClassifier
from emotion.data.names import class_key
from emotion.data.transforms.tta import mean_probabilities


class Ensemble(nn.Module):
    """One classifier, or several of the same classes (else UserError), each with its own preprocessing."""

    def __init__(self, loaded: Sequence[LoadedCheckpoint]) -> None:
        super().__init__()
        self.loaded = tuple(loaded)
        self.classes = self.loaded[0].classifier.classes
        owner, advice = f"{self.loaded[0].path} on", "An ensemble needs checkpoints of the same classes."
        for checkpoint in self.loaded:
            check_classes(checkpoint.path, checkpoint.classifier.classes, self.classes, owner, advice)
        self.classifiers = nn.ModuleList(checkpoint.classifier for checkpoint in self.loaded)
        self._outputs: list[int] | None = None  # of the members' classes, those of `classes`; None for all

    @property
    def members(self) -> list[EmotionClassifier]:
        """The classifiers, in the order given."""
        return [checkpoint.classifier for checkpoint in self.loaded]

    @property
    def name(self) -> str:
        """The names of the members' networks, joined by " + "."""
        return " + ".join(member.network_name for member in self.members)

    @property
    def paths(self) -> list[str]:
        """The members' checkpoint files."""
        return [str(checkpoint.path) for checkpoint in self.loaded]

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device  # Lightning does not update a member's when a parent is moved

    @property
    def source_shape(self) -> tuple[int, int]:
        """Side in pixels and channels of the faces to pass: the largest of the members' training data."""
        sides, channels = zip(*(checkpoint.source_shape for checkpoint in self.loaded), strict=True)
        return max(sides), max(channels)

    @property
    def temperatures(self) -> list[float]:
        """The members' temperatures."""
        return [member.temperature for member in self.members]

    def summary(self) -> dict[str, Any]:
        """Return checkpoint, epoch and temperature for a record; lists if there are several members."""
        columns: dict[str, list[Any]] = {
            "checkpoint": self.paths,
            "epoch": [checkpoint.epoch + 1 for checkpoint in self.loaded],
            "temperature": self.temperatures,
        }
        return {name: values if len(values) > 1 else values[0] for name, values in columns.items()}

    def restrict(self, classes: Sequence[str]) -> list[str]:
        """Predict only these classes, in this order and under these names, from now on; return the other ones.

        They are some of the members' classes, or synonyms of them (see `class_key`); others raise KeyError.
        """
        names = self.loaded[0].classifier.classes
        places = {class_key(name): place for place, name in enumerate(names)}
        self.classes, self._outputs = tuple(classes), [places[class_key(name)] for name in classes]
        return [name for place, name in enumerate(names) if place not in self._outputs]

    def _select(self, probabilities: Tensor) -> Tensor:
        """Return probabilities (..., K) of the members' classes as those of `classes`, which add up to 1."""
        if self._outputs is None:
            return probabilities
        selected = probabilities[..., self._outputs]
        return selected / selected.sum(-1, keepdim=True).clamp(min=torch.finfo(selected.dtype).tiny)

    def probabilities(self, pixels: Tensor, tta: str = "none") -> Tensor:
        """Return the mean probabilities (B, K) of uint8 faces (B, H, W) or (B, H, W, 3)."""
        return self.with_and_without_temperature(pixels, [tta])[:, 0, 0]

    def calibrated_probabilities(self, faces: Tensor) -> Tensor:
        """Return the mean probabilities (B, K) of faces (B, 1 or 3, H, W) in [0, 1]; differentiable."""
        members = [member.calibrated_probabilities(member.preprocess.transform(faces)) for member in self.members]
        return self._select(torch.stack(members).mean(0))

    def with_and_without_temperature(self, pixels: Tensor, tta: Sequence[str]) -> Tensor:
        """Return the mean probabilities (B, len(tta), 2, K) with the members' temperatures and with temperature 1.

        The unchanged face is evaluated once for all kinds of TTA.
        """
        members = []
        for member in self.members:
            logits = member.logits(pixels, tta).values()
            pairs = [
                torch.stack([mean_probabilities(views, member.temperature), mean_probabilities(views)], 1)
                for views in logits
            ]
            members.append(torch.stack(pairs, 1))
        return self._select(torch.stack(members).mean(0))


def load_ensemble(sources: str | Path | Sequence[object]) -> Ensemble:
    """Load `checkpoint=RUN` or `checkpoint=[RUN,RUN]`.

    Raises:
        UserError: A checkpoint is missing or invalid, or their classes differ.
    """
    return Ensemble([load_checkpoint(source) for source in locate_all(sources)])
