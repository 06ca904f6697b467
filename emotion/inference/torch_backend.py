"""The PyTorch backend."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from emotion.checkpoints.ensemble import load_ensemble
from emotion.data.transforms.tta import TTA
from emotion.errors import UserError
from emotion.runtime.hardware import torch_device


class TorchBackend:
    """One checkpoint, or an ensemble of several; see `Backend`.

    Args:
        checkpoint: A checkpoint as `emotion.checkpoints.load.load_checkpoint` takes it, or a list of them.
        tta: Test-time augmentation: none, flip or ten_crop.
        accelerator: auto, cpu or gpu.

    Raises:
        UserError: A checkpoint is missing or invalid, or `tta` is unknown.
    """

    def __init__(self, checkpoint: str | Path | Sequence[object], tta: str = "none", accelerator: str = "auto") -> None:
        if tta not in TTA:
            raise UserError(f"tta={tta}: expected one of {', '.join(TTA)}.")
        self.ensemble = load_ensemble(checkpoint).to(torch_device(accelerator)).eval()
        self.name, self.classes, self.tta = self.ensemble.name, self.ensemble.classes, tta
        self.side, self.channels = self.ensemble.source_shape

    @torch.inference_mode()
    def probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify faces (B, side, side), or (B, side, side, 3) if RGB; returns probabilities (B, K)."""
        pixels = torch.from_numpy(faces).to(self.ensemble.device)
        probabilities: NDArray[np.float32] = self.ensemble.probabilities(pixels, self.tta).cpu().numpy()
        return probabilities
