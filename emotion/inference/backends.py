"""Backends: faces to probabilities, with PyTorch or ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emotion.errors import UserError

ONNX_SUFFIX = ".onnx"


class Backend(Protocol):
    """A trained classifier.

    Attributes:
        name: Name of the network, for display.
        classes: Class names in the order of the probabilities.
        side: Side of its faces in pixels.
        channels: 1 for grey faces, 3 for RGB.
    """

    name: str
    classes: tuple[str, ...]
    side: int
    channels: int

    def probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify faces (B, side, side), or (B, side, side, 3) if RGB; returns probabilities (B, K)."""

    def maps(self, faces: NDArray[np.uint8], targets: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return Grad-CAM maps (B, h, w), non-negative, for the same faces and their most likely classes (B,).

        Raises:
            UserError: The network has none.
        """


def load_backend(checkpoint: str | Path | Sequence[object], tta: str = "none", accelerator: str = "auto") -> Backend:
    """Load a classifier: an .onnx file with ONNX Runtime, without importing torch; any other checkpoint with PyTorch.

    Args:
        checkpoint: A checkpoint, or a list of checkpoints for an ensemble.
        tta: Test-time augmentation: none, flip or ten_crop.
        accelerator: auto, cpu or gpu; ignored for ONNX.

    Raises:
        UserError: A checkpoint is missing or invalid, or `tta` does not fit it.
    """
    if isinstance(checkpoint, str | Path) and str(checkpoint).endswith(ONNX_SUFFIX):
        from emotion.inference.onnx_backend import OnnxBackend

        return OnnxBackend(Path(checkpoint), tta)
    if not isinstance(checkpoint, str | Path) and any(str(member).endswith(ONNX_SUFFIX) for member in checkpoint):
        raise UserError(f"checkpoint={checkpoint}: an ensemble cannot contain .onnx files; expected a single one.")
    from emotion.checkpoints.locate import locate_all

    locate_all(checkpoint)  # before torch is imported: a missing checkpoint is reported at once
    from emotion.inference.torch_backend import TorchBackend

    return TorchBackend(checkpoint, tta, accelerator)
