"""Train, evaluate, explain and use facial-expression classifiers: `emotion.load().predict("photo.jpg")`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from emotion.inference.predictor import Predictor

__all__ = ["load"]


def load(
    checkpoint: "str | Path | Sequence[object]" = "fast_cnn",
    detector: str = "blazeface",
    tta: str = "none",
    accelerator: str = "auto",
) -> "Predictor":
    """Load a trained classifier and a face detector: `emotion.load("RUN").predict(images)`.

    Args:
        checkpoint: Name of weights that come with the package; a run folder; a .ckpt, .safetensors or .onnx file;
            hub:owner/name; or a list of these as an ensemble.
        detector: blazeface, haar, none (images are cropped faces), or the file of YuNet's model.
        tta: Test-time augmentation: none, flip or ten_crop.
        accelerator: auto, cpu or gpu.

    Raises:
        emotion.errors.UserError: An argument is invalid, or a file is missing.
    """
    from emotion.errors import UserError
    from emotion.inference.backends import load_backend
    from emotion.inference.blazeface import BlazeFace
    from emotion.inference.detectors import FullImage, Haar, YuNet
    from emotion.inference.predictor import Predictor

    detectors = {"blazeface": BlazeFace, "haar": Haar, "none": FullImage}
    if detector not in detectors and not detector.endswith(".onnx"):
        raise UserError(f"detector={detector}: expected {', '.join(detectors)}, or the .onnx file of YuNet's model.")
    face_detector = detectors[detector]() if detector in detectors else YuNet(detector)
    return Predictor(load_backend(checkpoint, tta, accelerator), face_detector)
