"""From faces as they are stored to maps of the same size: one classifier's, or the mean of an ensemble's."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from emotion.ensemble import Ensemble
from emotion.explainers.method import Method

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
