"""Trained classifiers that are asked as one: the mean of their probabilities."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from emotion import checkpoints
from emotion.checkpoints import Loaded
from emotion.classifier import EmotionClassifier
from emotion.cli import listed


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
            checkpoints.check_classes(one.path, one.classifier.classes, self.classes)
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
        return self.members[0].device

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor, views: str = "none") -> Tensor:
        """Raw uint8 faces (B, H, W) or (B, H, W, 3) to probabilities (B, K), the mean over members of their own."""
        return torch.stack([member.probabilities(pixels, views).float() for member in self.members]).mean(0)


def load(sources: str | Path | Sequence[object]) -> Ensemble:
    """The run folders or .ckpt files of `checkpoint=RUN` or `checkpoint=[RUN,RUN]`, as one.

    Raises:
        UserError: one is missing or is none of ours, or they tell other classes apart.
    """
    named = [str(sources)] if isinstance(sources, Path) else listed(sources)
    return Ensemble([checkpoints.load(source) for source in named])
