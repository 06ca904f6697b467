"""Backends: faces to probabilities, with PyTorch or ONNX Runtime."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emotion.checkpoints.locate import ONNX_SUFFIX, locate_all, zoo
from emotion.errors import UserError
from emotion.inference.onnx_backend import LIGHT_TTA, OnnxBackend

SYNTHETIC_WARNING = (
    "SYNTHETIC: {name} was trained on synthetic faces; its predictions for photographs are meaningless. "
    "Train on real faces, or omit checkpoint=."
)


class Backend(Protocol):
    """A trained classifier."""

    name: str  # of the network, for display
    classes: tuple[str, ...]  # in the order of the probabilities
    side: int  # of its faces in pixels
    channels: int  # 1 for gray faces, 3 for RGB
    is_synthetic: bool  # whether it was trained on synthetic faces, so that its answers say nothing about photographs

    def probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify faces (B, side, side), or (B, side, side, 3) if RGB; returns probabilities (B, K)."""

    def maps(self, faces: NDArray[np.uint8], targets: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return Grad-CAM maps (B, side, side) from 0 to 1 for the same faces and their most likely classes (B,).

        A map is NaN if there is none of that class.

        Raises:
            UserError: The network has none.
        """


def load_backend(
    checkpoint: str | Path | Sequence[object],
    tta: str | None = None,
    accelerator: str = "auto",
    before_torch: Callable[[], None] = lambda: None,
    gpu_setting: str = "accelerator=gpu",
) -> Backend:
    """Load a classifier with ONNX Runtime, which does not import torch, where possible, otherwise with PyTorch.

    ONNX Runtime runs .onnx files, and included weights unless accelerator=gpu or tta=ten_crop is requested. A list of
    checkpoints is an ensemble. tta=None is that of an .onnx file, for other checkpoints none. `before_torch` is called
    before PyTorch is imported, which takes seconds. `gpu_setting` is what the user wrote for gpu, for messages.

    Raises:
        UserError: A checkpoint is missing or invalid, or `tta` or `accelerator` does not fit it.
    """
    several = checkpoint if isinstance(checkpoint, Sequence) and not isinstance(checkpoint, str) else [checkpoint]
    names = [str(name) for name in several]
    files = [name for name in names if name.endswith(ONNX_SUFFIX)]
    if files and len(names) > 1:
        raise UserError(f"checkpoint={names}: an ensemble cannot contain .onnx files; expected a single one.")
    if files and accelerator == "gpu":
        raise UserError(
            f"{gpu_setting}: {files[0]} runs on the CPU, as all .onnx files do; expected auto or cpu, or the run, "
            f".ckpt or .safetensors file that it was exported from."
        )
    if not files:
        locate_all(checkpoint)  # reports a missing checkpoint before torch is imported
    if len(names) == 1 and accelerator != "gpu" and tta in (None, *LIGHT_TTA) and not Path(names[0]).exists():
        files = files or [str(path) for name, path in zoo(ONNX_SUFFIX).items() if name == names[0]]
    if files:
        return OnnxBackend(Path(files[0]).expanduser(), tta)
    before_torch()
    from emotion.inference.torch_backend import TorchBackend

    return TorchBackend(checkpoint, tta or "none", accelerator, gpu_setting)
