"""The ONNX Runtime backend; it does not import torch."""

import importlib
import mmap
import re
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion.checkpoints.locate import ZOO
from emotion.data.faces import face_shape
from emotion.data.transforms.shifts import windows
from emotion.errors import UserError, first_line, missing_extra
from emotion.io.bounded import parse_json

LIGHT_TTA = ("none", "flip", "shifted")  # supported by the ONNX files of this package
FORMAT = "emotion onnx 1"
METADATA = "emotion"
"""Metadata property that holds JSON: format, name, classes, side, channels, tta, temperature, synthetic, record."""

FACES, PROBABILITIES, MAP = "faces", "probabilities", "map"
"""Names of the input and of the outputs."""

MAX_SIDE = 4096
MAX_MEMORY = 600_000_000
"""Bytes, besides weights, that all sessions of a process may allocate; a tiny file can request any amount."""

EXTERNAL_DATA = re.compile(rb"\n[\x08\x88][\x80\x00]{0,9}location")
"""The protocol buffer key with which a tensor names the file that holds its values."""

EXPECTED = "expected a file that python -m emotion.export wrote"


Value = TypeVar("Value", np.uint8, np.float32)


class OnnxBackend:
    """A file that `python -m emotion.export` wrote; see `Backend`.

    Args:
        source: The file or its bytes.
        tta: Test-time augmentation: the exported one, or flip or shifted if the file has none; None accepts any.
        threads: Number of threads; 0 for all cores.

    Raises:
        UserError: The file is missing, is not ONNX, was not written by this package, has other augmentation, or needs
            more than `MAX_MEMORY` for one face.
    """

    def __init__(self, source: Path | bytes, tta: str | None = None, threads: int = 0) -> None:
        runtime = import_optional("onnxruntime")
        if isinstance(source, Path) and not source.is_file():
            raise UserError(f"{source} does not exist; {EXPECTED}.")
        self.arguments = source, tta, threads
        self.file = "the file" if isinstance(source, bytes) else str(source)
        is_ours = isinstance(source, Path) and source.parent == ZOO  # see emotion.exporting.zoo
        if not is_ours:
            self._check_self_contained(source)
        _limit_memory()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # else idle threads occupy cores
        options.log_severity_level = 4  # fatal only; errors are also raised
        options.add_session_config_entry("session.use_env_allocators", "1")
        self.run_error = runtime.capi.onnxruntime_pybind11_state.Fail
        try:
            self.session = runtime.InferenceSession(
                source if isinstance(source, bytes) else str(source),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=[] if is_ours else ["ConstantFolding"],  # which ignores the memory limit
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            reason = first_line(error)
            raise UserError(f"{self.file} cannot be read as ONNX ({reason}). Is it complete?") from error
        metadata = self._metadata()
        self.name, self.classes, self.tta = metadata["name"], tuple(metadata["classes"]), metadata["tta"]
        self.side, self.channels = metadata["side"], metadata["channels"]
        self.record = metadata.get("record")  # of the exported run; a list of them for an ensemble
        self.is_synthetic = bool(metadata.get("synthetic"))
        self.added_tta = tta if self.tta == "none" and tta in LIGHT_TTA else None
        self._check_output()
        if tta not in (None, self.tta, self.added_tta):
            raise UserError(
                f"{self.file} was exported with tta={self.tta}; found tta={tta}. Use that, or export again: "
                f"python -m emotion.export checkpoint=RUN tta={tta}."
            )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self.arguments  # sessions cannot be pickled

    def probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify faces (B, side, side), or (B, side, side, 3) if RGB; returns probabilities (B, K)."""
        mean: NDArray[np.float32] = np.mean([self._run(PROBABILITIES, view) for view in self._views(faces)], 0)
        return mean

    def maps(self, faces: NDArray[np.uint8], targets: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return Grad-CAM maps (B, side, side) from 0 to 1; the file itself selects the most likely classes.

        A map is that of the first view whose most likely class is the target (B,), laid over the face; NaN if there is
        none.

        Raises:
            UserError: The file was exported without them.
        """
        if MAP not in [output.name for output in self.session.get_outputs()]:
            advice = "python -m emotion.export RUN grad_cam=true adds it"
            raise UserError(f"{self.name} was exported without Grad-CAM; {advice}.")
        maps, views = self._maps(faces), self._views(faces)
        if targets is None:
            return maps
        missing = np.flatnonzero(self._run(PROBABILITIES, faces).argmax(1) != targets)
        maps[missing] = np.nan
        for index, view in list(enumerate(views))[1:]:
            if not missing.size:
                break
            is_target = self._run(PROBABILITIES, view[missing]).argmax(1) == targets[missing]
            found, missing = missing[is_target], missing[~is_target]
            if found.size:
                maps[found] = _lay_over_faces(self._maps(view[found]), index, len(views))
        return maps

    def _maps(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the maps (B, side, side) of one view, scaled and enlarged as by the PyTorch backend.

        The mean of an ensemble's maps, which the file scales, is only enlarged.
        """
        maps = self._run(MAP, faces)
        if isinstance(self.record, list):
            return _resize(maps, self.side).clip(0, 1)
        return _scale(_resize(_scale(maps), self.side))

    def _views(self, faces: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """Return the views (B, side, side) or (B, side, side, 3) to average, the mirror images last."""
        views = _shifted(faces) if self.added_tta == "shifted" else [faces]
        return views + [view[:, :, ::-1] for view in views] if self.added_tta in ("flip", "shifted") else views

    def _run(self, output: str, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute an output (B, ...), halving batches that exceed the memory limit."""
        try:
            values: NDArray[np.float32] = self.session.run([output], {FACES: np.ascontiguousarray(faces)})[0]
        except self.run_error as error:
            if len(faces) == 1:
                raise UserError(
                    f"{self.file} cannot be run, or needs more than {MAX_MEMORY / 1e6:.0f} MB for a face; {EXPECTED}."
                ) from error
            half = len(faces) // 2
            return np.concatenate([self._run(output, faces[:half]), self._run(output, faces[half:])])
        return values

    def _check_self_contained(self, source: Path | bytes) -> None:
        match = None
        if isinstance(source, bytes):
            match = EXTERNAL_DATA.search(source)
        elif source.stat().st_size:
            with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                match = EXTERNAL_DATA.search(content)
        if match:
            raise UserError(f"{self.file} reads weights from other files; {EXPECTED}, which contains its weights.")

    def _metadata(self) -> dict[str, Any]:
        text = self.session.get_modelmeta().custom_metadata_map.get(METADATA)
        try:
            metadata: Any = parse_json(text or "null")
        except ValueError:
            metadata = None
        if not _is_valid(metadata):
            raise UserError(f"{self.file} is not an ONNX file of this package; {EXPECTED}.")
        return dict(metadata)

    def _check_output(self) -> None:
        """Check that a blank face gets probabilities, which it does not if weights are NaN."""
        blank = np.zeros((1, *face_shape(self.side, self.channels)), np.uint8)
        try:
            values = self.probabilities(blank)
        except UserError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise UserError(f"{self.file} cannot be run ({first_line(error)}); {EXPECTED}.") from error
        if values.shape != (1, len(self.classes)) or not abs(values.sum() - 1) < 0.01:
            raise UserError(f"{self.file} is not a classifier: its output is not probabilities; {EXPECTED}.")


def import_optional(*modules: str) -> Any:  # noqa: ANN401
    """Import optional modules and return the first.

    Raises:
        UserError: One is not installed; the message names the extra.
    """
    try:
        first, *_ = [importlib.import_module(module) for module in modules]
        return first
    except ImportError as error:
        raise missing_extra("ONNX", error.name, "export") from error


def _shifted(faces: NDArray[Value]) -> list[NDArray[Value]]:
    """Return the faces (B, side, side) or (B, side, side, 3) and their shifts, as `tta.shifted` makes them."""
    side = faces.shape[1]
    step, corners = windows(side)
    padded = np.pad(faces, [(0, 0), (step, step), (step, step), *[(0, 0)] * (faces.ndim - 3)], mode="edge")
    return [padded[:, top : top + side, left : left + side] for top, left in corners]


def _lay_over_faces(maps: NDArray[np.float32], index: int, num_views: int) -> NDArray[np.float32]:
    """Undo the mirroring and the shift of one of the views of `OnnxBackend`."""
    num_shifts = num_views // 2
    if index >= num_shifts:
        maps = maps[:, :, ::-1]
    return _shifted(maps)[-index % num_shifts]  # the opposite of each direction is as far from the end


def _resize(maps: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Resize maps (B, h, w) to (B, side, side) as torch's bilinear interpolation does."""
    return np.stack([cv2.resize(one, (side, side), interpolation=cv2.INTER_LINEAR) for one in maps])


def _scale(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each map (B, H, W) from 0 to 1 as pytorch-grad-cam does; constant maps become 0."""
    maps = maps - maps.min((1, 2), keepdims=True)
    return np.asarray(maps / (maps.max((1, 2), keepdims=True) + 1e-7), np.float32)


@cache
def _limit_memory() -> None:
    """Let all sessions of this process share one allocator of limited size."""
    runtime = import_optional("onnxruntime")
    device = runtime.OrtMemoryInfo("Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT)
    runtime.create_and_register_allocator(device, runtime.OrtArenaCfg({"max_mem": MAX_MEMORY}))


def _is_valid(metadata: object) -> bool:
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        return False
    classes, side = metadata.get("classes"), metadata.get("side")
    return (
        isinstance(classes, list)
        and len(classes) > 0
        and all(isinstance(text, str) for text in [metadata.get("name"), metadata.get("tta"), *classes])
        and type(side) is int
        and 0 < side <= MAX_SIDE
        and metadata.get("channels") in (1, 3)
    )
