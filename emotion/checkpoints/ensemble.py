"""Trained classifiers that are asked as one: the mean of their probabilities."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emotion.checkpoints.load import Loaded, check_classes, load_checkpoint
from emotion.checkpoints.locate import locate_all
from emotion.classifier import EmotionClassifier
from emotion.data.transforms.tta import averaged


class Ensemble(nn.Module):
    """One trained classifier, or several of the same classes; each sees a face through its own input.

    Args:
        loaded: the members, one at least.

    Raises:
        UserError: they tell other classes apart than the first.
    """

    def __init__(self, loaded: Sequence[Loaded]) -> None:
        super().__init__()
        self.loaded = tuple(loaded)
        self.classes = self.loaded[0].classifier.classes
        for one in self.loaded:
            check_classes(one.path, one.classifier.classes, self.classes)
        self.classifiers = nn.ModuleList(one.classifier for one in self.loaded)

    @property
    def members(self) -> list[EmotionClassifier]:
        """The classifiers, in the order in which they were named."""
        return [one.classifier for one in self.loaded]

    @property
    def name(self) -> str:
        """For people: its members' networks."""
        return " + ".join(getattr(one.net, "name", type(one.net).__name__) for one in self.members)

    @property
    def paths(self) -> list[str]:
        """Of the members' checkpoints."""
        return [str(one.path) for one in self.loaded]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device  # a member does not see that it is moved as a part

    @property
    def stored(self) -> tuple[int, int]:
        """Side and channels of the faces that it takes: the largest that a member's source stores."""
        sides, channels = zip(*(one.stored for one in self.loaded), strict=True)
        return max(sides), max(channels)

    @property
    def temperatures(self) -> list[float]:
        """Of the members' probabilities."""
        return [member.temperature for member in self.members]

    def described(self) -> dict[str, Any]:
        """For records: each member's checkpoint, epoch and temperature; lists where there are several."""
        columns: dict[str, list[Any]] = {
            "checkpoint": self.paths,
            "epoch": [one.epoch for one in self.loaded],
            "temperature": self.temperatures,
        }
        return {name: values if len(values) > 1 else values[0] for name, values in columns.items()}

    def probabilities(self, pixels: Tensor, tta: str = "none") -> Tensor:
        """Raw uint8 faces (B, H, W) or (B, H, W, 3) to probabilities (B, K), the mean over members of their own."""
        return self.with_and_without_temperature(pixels, [tta])[:, 0, 0]

    def calibrated(self, faces: Tensor) -> Tensor:
        """Faces (B, 1 or 3, H, W) from 0 to 1 to the same; gradients flow."""
        return torch.stack([one.calibrated(one.preprocess.take(faces)) for one in self.members]).mean(0)

    def with_and_without_temperature(self, pixels: Tensor, tta: Sequence[str]) -> Tensor:
        """For each of the named views `probabilities`, and what they would be if every member's temperature were 1.

        (B, len(views), 2, K), of one pass: a view that several names share is asked once.
        """
        of_members = [
            torch.stack([torch.stack([averaged(own, t), averaged(own)], 1) for own in logits.values()], 1)
            for logits, t in zip(
                (one.logits_of_each(pixels, tta) for one in self.members), self.temperatures, strict=True
            )
        ]
        return torch.stack(of_members).mean(0)


def load(sources: str | Path | Sequence[object]) -> Ensemble:
    """The run folders or .ckpt files of `checkpoint=RUN` or `checkpoint=[RUN,RUN]`, as one.

    Raises:
        UserError: none is named, one is missing or is none of ours, or they tell other classes apart.
    """
    return Ensemble([load_checkpoint(source) for source in locate_all(sources)])
