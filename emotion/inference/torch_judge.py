"""Trained classifiers as a judge."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from emotion import ensemble, machine
from emotion.errors import UserError
from emotion.views import VIEWS


class TorchJudge:
    """One checkpoint, or the mean of several; see `Judge`.

    Args:
        checkpoint: whatever `emotion.checkpoints.load` takes, or a list of such.
        views: test-time views: none, flip or ten_crop.
        accelerator: auto, cpu or gpu.

    Raises:
        UserError: a checkpoint is missing or none of ours, or there are no such views.
    """

    def __init__(
        self, checkpoint: str | Path | Sequence[object], views: str = "none", accelerator: str = "auto"
    ) -> None:
        if views not in VIEWS:
            raise UserError(f"views={views}: expected one of {', '.join(VIEWS)}.")
        self.ensemble = ensemble.load(checkpoint).to(machine.device(accelerator)).eval()
        self.name, self.classes, self.views = self.ensemble.name, self.ensemble.classes, views
        self.side, self.channels = self.ensemble.stored

    def probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Faces (B, side, side), or (B, side, side, 3) of three channels, to probabilities (B, K)."""
        with torch.inference_mode():
            pixels = torch.from_numpy(faces).to(self.ensemble.device)
            found: NDArray[np.float32] = self.ensemble.probabilities(pixels, self.views).cpu().numpy()
            return found
