"""From faces as they are stored to maps of the same size: one classifier's, or the mean of an ensemble's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from emotion.checkpoints.ensemble import Ensemble
from emotion.classifier import EmotionClassifier


class Method(Protocol):
    """Called with a classifier in evaluation mode, its parameters without gradients; leaves it as it was.

    `signed`: whether a map has negative values, which speak against the class; else it goes from 0 up.
    """

    signed: bool

    def __call__(self, classifier: EmotionClassifier, faces: Tensor, targets: Tensor) -> Tensor:
        """Normalised faces (B, C, S, S) and the classes to explain (B,) to maps (B, S, S) of what counted for them."""
        ...


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Equal draws each time, and the former state of the generators afterwards; captum draws by NumPy's global one."""
    before = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002


BATCH = 64
"""Faces that are explained together; the same faces in batches of another size have other SHAP values."""


class Explainer:
    """An ensemble and a method that explains its members.

    Args:
        ensemble: its parameters lose their gradients here.
        method: what explains each member.
        precision: 32-true or bf16-mixed.
    """

    def __init__(self, ensemble: Ensemble, method: Method, precision: str | int = "32-true") -> None:
        self.ensemble, self.method = ensemble.eval().requires_grad_(False), method
        self.precision, self.bf16 = precision, str(precision).startswith("bf16")

    def maps(self, faces: Tensor, targets: Tensor, progress: Callable[[int], object] = lambda done: None) -> Tensor:
        """Faces (N, 1 or 3, H, W) from 0 to 1 and the classes to explain (N,) to maps (N, H, W) on the CPU.

        Members' maps are scaled to a largest size of 1 each before their mean is taken; one alone stays as it is.
        `progress` is told how many faces have been done, batch by batch.
        """
        found = []
        for some, of_some in zip(batches(faces), batches(targets), strict=True):
            found.append(self._batch(some.to(self.ensemble.device), of_some.to(self.ensemble.device)).cpu())
            progress(len(some))
        return torch.cat(found)

    def _batch(self, faces: Tensor, targets: Tensor) -> Tensor:
        maps = []
        for member in self.ensemble.members:
            takes = member.preprocess
            with torch.autocast(faces.device.type, torch.bfloat16, enabled=self.bf16):
                found = self.method(member, takes.take(faces), targets)
            maps.append(takes.lay_back(found, *faces.shape[-2:]))
        if len(maps) == 1:
            return maps[0]
        return torch.stack([one / one.abs().amax((1, 2), keepdim=True).clamp(min=1e-12) for one in maps]).mean(0)

    @torch.no_grad()
    def probabilities(self, faces: Tensor) -> Tensor:
        """Faces (N, 1 or 3, H, W) from 0 to 1 to the ensemble's probabilities (N, K) on the CPU."""
        found = []
        for some in batches(faces):
            some = some.to(self.ensemble.device)
            with torch.autocast(some.device.type, torch.bfloat16, enabled=self.bf16):
                found.append(self.ensemble.calibrated(some).cpu())
        return torch.cat(found)


def batches(values: Tensor) -> Iterator[Tensor]:
    """Some at a time."""
    yield from torch.split(values, BATCH)
