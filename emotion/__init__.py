"""Train, evaluate, explain and use facial-expression classifiers: `emotion.load().predict("photo.jpg")`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from emotion.data.crop import Detector
    from emotion.inference.predictor import Predictor

__all__ = ["__version__", "load"]


def load(
    checkpoint: "str | Path | Sequence[object]" = "ferplus",
    detector: "str | Detector" = "blazeface",
    tta: str | None = None,
    device: str = "auto",
    min_confidence: float = 0.0,
    plugins: "Sequence[str]" = (),
) -> "Predictor":
    """Load a trained classifier and a face detector: `emotion.load("RUN").predict(images)`.

    Args:
        checkpoint: Name of weights that come with the package; a run folder; a .ckpt, .safetensors or .onnx file;
            hub:owner/name; or a list of these as an ensemble.
        detector: Name of a file in conf/detector, such as haar or none (images are cropped faces); the .onnx file of
            YuNet's model; or a detector of your own.
        tta: Test-time augmentation: none, flip, shifted or ten_crop; None for that of an .onnx file, else none.
        device: auto, cpu or gpu (or cuda). Included weights run on the CPU with ONNX Runtime, without torch, unless
            gpu is requested; .onnx files always do, and refuse gpu.
        min_confidence: Probability of the most likely class below which a face is labeled "unclear".
        plugins: Your own modules, which may define a checkpoint's network.

    Raises:
        emotion.errors.UserError: An argument is invalid, or a file is missing.
    """
    from emotion.errors import UserError
    from emotion.inference.backends import SYNTHETIC_WARNING, load_backend
    from emotion.inference.blazeface import BlazeFace
    from emotion.inference.detectors import load_detector
    from emotion.inference.predictor import Predictor

    if device not in ("auto", "cpu", "gpu", "cuda"):
        raise UserError(f"device={device}: expected auto, cpu or gpu.")
    if plugins:
        from emotion.config.instantiate import allow_plugins

        allow_plugins(plugins)
    if not callable(detector):
        detector = BlazeFace() if detector == "blazeface" else load_detector(str(detector))
    backend = load_backend(checkpoint, tta, "gpu" if device == "cuda" else device, gpu_setting=f"device={device}")
    if backend.is_synthetic:
        import warnings

        warnings.warn(SYNTHETIC_WARNING.format(name=backend.name), stacklevel=2)
    return Predictor(backend, detector, min_confidence)


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("emotion")
    raise AttributeError(f"module 'emotion' has no attribute {name!r}")
