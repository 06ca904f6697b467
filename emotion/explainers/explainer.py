"""Attribution maps of one classifier or of an ensemble."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from emotion.checkpoints.ensemble import Ensemble
from emotion.classifier import EmotionClassifier
from emotion.errors import UserError, counted

BATCH_SIZE = 64
"""Faces explained at once. SHAP values depend on it."""


class Explainer(Protocol):
    """An attribution method.

    It is called with a classifier in evaluation mode whose parameters require no gradients, and leaves it unchanged.
    """

    signed: bool  # whether maps have negative values, which count against the class

    def __call__(self, classifier: EmotionClassifier, faces: Tensor, targets: Tensor) -> Tensor:
        """Return maps (B, S, S) for normalized faces (B, C, S, S) and target classes (B,)."""
        ...


class EnsembleExplainer:
    """Apply an explainer to every member of an ensemble, in the precision 32-true or bf16-mixed.

    The ensemble's parameters no longer require gradients afterwards.
    """

    def __init__(self, ensemble: Ensemble, explainer: Explainer, precision: str | int = "32-true") -> None:
        self.ensemble, self.explainer = ensemble.eval().requires_grad_(False), explainer
        self.precision, self.bf16 = precision, str(precision).startswith("bf16")

    def maps(self, faces: Tensor, targets: Tensor, progress: Callable[[int], object] = lambda done: None) -> Tensor:
        """Return maps (N, H, W) on the CPU for faces (N, 1 or 3, H, W) in [0, 1] and target classes (N,).

        The maps of an ensemble are the mean of its members' maps, each scaled to a maximum magnitude of 1. `progress`
        is called with the number of faces of every finished batch.

        Raises:
            UserError: The explainer returned another number of maps than of faces.
        """
        maps = []
        for batch, batch_targets in zip(torch.split(faces, BATCH_SIZE), torch.split(targets, BATCH_SIZE), strict=True):
            maps.append(self._explain(batch.to(self.ensemble.device), batch_targets.to(self.ensemble.device)).cpu())
            progress(len(batch))
        return torch.cat(maps)

    @torch.no_grad()
    def probabilities(self, faces: Tensor) -> Tensor:
        """Return the ensemble's probabilities (N, K) on the CPU for faces (N, 1 or 3, H, W) in [0, 1]."""
        probabilities = []
        for batch in torch.split(faces, BATCH_SIZE):
            batch = batch.to(self.ensemble.device)
            with torch.autocast(batch.device.type, torch.bfloat16, enabled=self.bf16):
                probabilities.append(self.ensemble.calibrated_probabilities(batch).cpu())
        return torch.cat(probabilities)

    def _explain(self, faces: Tensor, targets: Tensor) -> Tensor:
        maps = []
        for member in self.ensemble.members:
            with self._network_in_precision(member):
                member_maps = self.explainer(member, member.preprocess.transform(faces), targets)
            if len(member_maps) != len(faces):
                found = f"{counted(len(member_maps), 'map')} of {counted(len(faces), 'face')}"
                raise UserError(f"{type(self.explainer).__name__} returned {found}; expected one of each face.")
            maps.append(member.preprocess.maps_to_faces(member_maps.float(), *faces.shape[-2:]))
        return maps[0] if len(maps) == 1 else torch.stack([normalize_magnitude(member) for member in maps]).mean(0)

    @contextmanager
    def _network_in_precision(self, member: EmotionClassifier) -> Iterator[None]:
        """Compute the network alone in bfloat16: some functions that explainers use exist in float32 only."""
        forward = member.forward

        def cast(faces: Tensor) -> Tensor:
            with torch.autocast(faces.device.type, torch.bfloat16, enabled=self.bf16):
                return forward(faces).float()

        member.forward = cast  # type: ignore[method-assign]
        try:
            yield
        finally:
            del member.forward


def normalize_magnitude(maps: Tensor) -> Tensor:
    """Scale each map (..., H, W) to a maximum magnitude of 1; blank maps stay 0."""
    return maps / maps.abs().amax((-2, -1), keepdim=True).clamp(min=1e-12)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch and NumPy's global generator, which captum uses, and restore their states afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
