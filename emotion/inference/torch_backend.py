"""The PyTorch backend."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from emotion.checkpoints.ensemble import load_ensemble
from emotion.data.transforms.preprocess import to_float
from emotion.data.transforms.tta import TTA
from emotion.errors import UserError
from emotion.records.run_record import is_synthetic
from emotion.runtime.hardware import check_gpu, torch_device

if TYPE_CHECKING:
    from emotion.explainers.explainer import EnsembleExplainer

MAP_LAYER = "features"


class TorchBackend:
    """One checkpoint, or an ensemble of several; see `Backend`.

    Args:
        checkpoint: A checkpoint as `emotion.checkpoints.load.load_checkpoint` takes it, or a list of them.
        tta: Test-time augmentation: none, flip, shifted or ten_crop.
        accelerator: auto, cpu or gpu.
        gpu_setting: What the user wrote for gpu, for messages.

    Raises:
        UserError: A checkpoint is missing or invalid, `tta` is unknown, or there is no GPU.
    """

    def __init__(
        self,
        checkpoint: str | Path | Sequence[object],
        tta: str = "none",
        accelerator: str = "auto",
        gpu_setting: str = "accelerator=gpu",
    ) -> None:
        if tta not in TTA:
            raise UserError(f"tta={tta}: expected one of {', '.join(TTA)}.")
        check_gpu(accelerator, gpu_setting)
        self.ensemble = load_ensemble(checkpoint).to(torch_device(accelerator)).eval()
        self.name, self.classes, self.tta = self.ensemble.name, self.ensemble.classes, tta
        self.side, self.channels = self.ensemble.source_shape
        self.is_synthetic = is_synthetic(self.ensemble.loaded)

    @torch.inference_mode()
    def probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify faces (B, side, side), or (B, side, side, 3) if RGB; returns probabilities (B, K)."""
        pixels = torch.from_numpy(faces).to(self.ensemble.device)
        probabilities: NDArray[np.float32] = self.ensemble.probabilities(pixels, self.tta).cpu().numpy()
        return probabilities

    def maps(self, faces: NDArray[np.uint8], targets: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return Grad-CAM maps (B, side, side) from 0 to 1 for the same faces and classes (B,).

        Raises:
            UserError: The network has no layer `MAP_LAYER`.
        """
        maps = self._explainer.maps(to_float(torch.from_numpy(faces)), torch.from_numpy(targets))
        return np.asarray(maps.clamp(0, 1), np.float32)

    @cached_property
    def _explainer(self) -> "EnsembleExplainer":
        from emotion.explainers.explainer import EnsembleExplainer
        from emotion.explainers.gradcam import GradCam  # slow import

        return EnsembleExplainer(self.ensemble, GradCam(MAP_LAYER))
