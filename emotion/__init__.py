"""Train, judge, explain and use facial-expression classifiers: `emotion.load().predict("photo.jpg")`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from emotion.inference.predictor import Predictor

__all__ = ["load"]

DEFAULT = "fast_cnn"
"""The best of the weights that come with the package."""


def load(
    checkpoint: "str | Path | Sequence[object]" = DEFAULT,
    detector: str = "haar",
    tta: str = "none",
    accelerator: str = "auto",
) -> "Predictor":
    """A trained classifier, ready to look at pictures: `emotion.load("RUN").predict(images)`.

    Args:
        checkpoint: weights that come with the package, by name; a run folder, a .ckpt, .safetensors or .onnx file, or
            hub:owner/name; several as a list are asked as one.
        detector: haar, none (the pictures are faces already), or the file of YuNet's model.
        tta: test-time views: none, flip or ten_crop.
        accelerator: auto, cpu or gpu.

    Raises:
        emotion.errors.UserError: one of them is missing or wrong.
    """
    from emotion.inference.backends import judge_of
    from emotion.inference.detectors import Haar, Whole, YuNet
    from emotion.inference.predictor import Predictor

    finds = Haar() if detector == "haar" else Whole() if detector == "none" else YuNet(detector)
    return Predictor(judge_of(checkpoint, tta, accelerator), finds)
