"""A file of ONNX as a judge; torch is not needed."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion.errors import UserError

FORMAT = "emotion onnx 1"
METADATA = "emotion"
"""The file's property that holds JSON: format, name, classes, side, channels, views, temperature, record."""

FACES, PROBABILITIES, MAP = "faces", "probabilities", "map"
"""The input and the outputs."""


class OnnxJudge:
    """A file that python -m emotion.export wrote; see `Judge`.

    Args:
        source: its path, or what is in it.
        views: test-time views, which have to be those that are inside.
        threads: that it computes with; 0 for as many as the machine has cores.

    Raises:
        UserError: it is missing, is no ONNX, is another's, or has other views inside.
    """

    def __init__(self, source: Path | bytes, views: str | None = None, threads: int = 0) -> None:
        runtime = needed("onnxruntime")
        if isinstance(source, Path) and not source.is_file():
            raise UserError(f"{source} is not there; expected a file that python -m emotion.export wrote.")
        name = "the file" if isinstance(source, bytes) else str(source)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        try:
            content = source if isinstance(source, bytes) else str(source)
            self.session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own kinds have no common ancestor besides
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"{name} cannot be read as ONNX ({reason}). Is it whole?") from error
        told = _described(self.session.get_modelmeta().custom_metadata_map.get(METADATA), name)
        self.name, self.classes = str(told["name"]), tuple(told["classes"])
        self.side, self.channels, self.views = int(told["side"]), int(told["channels"]), str(told["views"])
        self.record = told.get("record")
        if views not in (None, self.views):
            raise UserError(
                f"{name} has views={self.views} inside; found views={views}. Ask for what is inside, or have it "
                f"exported anew: python -m emotion.export checkpoint=RUN views={views}."
            )

    def probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Faces (B, side, side), or (B, side, side, 3) of three channels, to probabilities (B, K)."""
        found: NDArray[np.float32] = self.session.run([PROBABILITIES], {FACES: np.ascontiguousarray(faces)})[0]
        return found

    def maps(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same faces to Grad-CAM of each one's likeliest class (B, h, w), 0 or more.

        Raises:
            UserError: the file was written without.
        """
        if MAP not in [output.name for output in self.session.get_outputs()]:
            raise UserError(f"{self.name}: the file makes no maps; that of python -m emotion.export target=web does.")
        found: NDArray[np.float32] = self.session.run([MAP], {FACES: np.ascontiguousarray(faces)})[0]
        return found


def needed(*modules: str) -> Any:  # noqa: ANN401
    """The first of the optional modules, once all are there.

    Raises:
        UserError: one is not installed; names the extra.
    """
    try:
        first, *_ = [importlib.import_module(module) for module in modules]
        return first
    except ImportError as error:
        raise UserError(f"ONNX needs {error.name}, which is not installed: pip install 'emotion[export]'.") from error


def _described(text: str | None, name: str) -> dict[str, Any]:
    try:
        told = json.loads(text or "null")
    except ValueError:
        told = None
    expected = ("name", "classes", "side", "channels", "views")
    if not isinstance(told, dict) or told.get("format") != FORMAT or not all(key in told for key in expected):
        raise UserError(f"{name} is no ONNX file of this package; expected one that python -m emotion.export wrote.")
    return told
