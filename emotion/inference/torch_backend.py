"""Faces to probabilities with a trained classifier in torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from emotion.checkpoints import ensemble
from emotion.data.transforms.tta import TTA
from emotion.errors import UserError
from emotion.runtime.hardware import device


class TorchJudge:
    """One checkpoint, or the mean of several; see `Judge`.

    Args:
        checkpoint: whatever `emotion.checkpoints.load.load_checkpoint` takes, or a list of such.
        tta: test-time views: none, flip or ten_crop.
        accelerator: auto, cpu or gpu.

    Raises:
        UserError: a checkpoint is missing or none of ours, or there are no such views.
    """

    def __init__(self, checkpoint: str | Path | Sequence[object], tta: str = "none", accelerator: str = "auto") -> None:
        if tta not in TTA:
            raise UserError(f"tta={tta}: expected one of {', '.join(TTA)}.")
        self.ensemble = ensemble.load(checkpoint).to(device(accelerator)).eval()
        self.name, self.classes, self.tta = self.ensemble.name, self.ensemble.classes, tta
        self.side, self.channels = self.ensemble.stored

    def probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Faces (B, side, side), or (B, side, side, 3) of three channels, to probabilities (B, K)."""
        with torch.inference_mode():
            pixels = torch.from_numpy(faces).to(self.ensemble.device)
            found: NDArray[np.float32] = self.ensemble.probabilities(pixels, self.tta).cpu().numpy()
            return found
