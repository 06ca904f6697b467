"""What takes faces for emotions: trained classifiers in torch, or a file of ONNX."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emotion.errors import UserError

ONNX = ".onnx"


class Judge(Protocol):
    """Attributes: name, for people; classes, in the order of the probabilities; side and channels of its faces."""

    name: str
    classes: tuple[str, ...]
    side: int
    channels: int

    def probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Faces (B, side, side), or (B, side, side, 3) of three channels, to probabilities (B, K)."""


def judge_of(checkpoint: str | Path | Sequence[object], tta: str = "none", accelerator: str = "auto") -> Judge:
    """The judge that `checkpoint` names, one or several; what is not in ONNX is loaded with torch.

    Raises:
        UserError: it is not there or none of ours, or cannot be asked as wished.
    """
    if isinstance(checkpoint, str | Path) and str(checkpoint).endswith(ONNX):
        from emotion.inference.onnx_backend import OnnxJudge

        return OnnxJudge(Path(checkpoint), tta)
    if not isinstance(checkpoint, str | Path) and any(str(one).endswith(ONNX) for one in checkpoint):
        raise UserError(f"checkpoint={checkpoint}: ONNX files are asked alone; give one, or checkpoints that are not.")
    from emotion.checkpoints.locate import locate_all

    locate_all(checkpoint)
    from emotion.inference.torch_backend import TorchJudge

    return TorchJudge(checkpoint, tta, accelerator)
