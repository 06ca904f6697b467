"""A file of ONNX as a judge; torch is not needed."""

import importlib
import mmap
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion.errors import UserError
from emotion.io.bounded import parsed
from emotion.io.digests import check_onnx

FORMAT = "emotion onnx 1"
EXPECTED = "expected one that python -m emotion.export wrote"
METADATA = "emotion"
"""The file's property that holds JSON: format, name, classes, side, channels, views, temperature, record."""

FACES, PROBABILITIES, MAP = "faces", "probabilities", "map"
"""The input and the outputs."""

ELSEWHERE = re.compile(rb"\n[\x08\x88][\x80\x00]{0,9}location")
"""How ONNX, a protocol buffer, writes the key under which a tensor names the file that its numbers are in."""

LARGEST_SIDE = 4096
MOST = 600_000_000
"""Bytes that a process's files may compute with, besides their weights: ten bytes of a file can ask for any number. Of
faces that take more than that together fewer are asked at a time."""


class OnnxJudge:
    """A file that python -m emotion.export wrote; see `Judge`.

    Args:
        source: its path, or what is in it.
        tta: test-time views, which have to be those that are inside.
        threads: that it computes with; 0 for as many as the machine has cores.

    Raises:
        UserError: it is missing, no ONNX or another's, has other views inside, or takes more than `MOST` for a face.
    """

    def __init__(self, source: Path | bytes, tta: str | None = None, threads: int = 0) -> None:
        runtime = needed("onnxruntime")
        _bound_memory()
        if isinstance(source, Path) and not source.is_file():
            raise UserError(f"{source} is not there; expected a file that python -m emotion.export wrote.")
        self.file = name = "the file" if isinstance(source, bytes) else str(source)
        _check_whole(source, name)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # fatal; all others are raised besides
        options.add_session_config_entry("session.use_env_allocators", "1")
        beyond_bounds = ["ConstantFolding"]  # computes before there is a bound; our exporter has done it
        self.failure = runtime.capi.onnxruntime_pybind11_state.Fail
        try:
            content = source if isinstance(source, bytes) else str(source)
            providers = ["CPUExecutionProvider"]
            self.session = runtime.InferenceSession(content, options, providers, disabled_optimizers=beyond_bounds)
        except Exception as error:  # its own kinds have no common ancestor besides
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"{name} cannot be read as ONNX ({reason}). Is it whole?") from error
        told = _described(self.session.get_modelmeta().custom_metadata_map.get(METADATA), name)
        self.name, self.classes, self.tta = told["name"], tuple(told["classes"]), told["tta"]
        self.side, self.channels, self.record = told["side"], told["channels"], told.get("record")
        self._check_answer(name)
        if tta not in (None, self.tta):
            raise UserError(
                f"{name} has tta={self.tta} inside; found tta={tta}. Ask for what is inside, or have it "
                f"exported anew: python -m emotion.export checkpoint=RUN tta={tta}."
            )

    def probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Faces (B, side, side), or (B, side, side, 3) of three channels, to probabilities (B, K)."""
        return self._asked(PROBABILITIES, faces)

    def _asked(self, output: str, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """An output for the faces (B, ...), fewer of them at a time where all together take too much.

        Raises:
            UserError: one alone does.
        """
        try:
            found: NDArray[np.float32] = self.session.run([output], {FACES: np.ascontiguousarray(faces)})[0]
        except self.failure as error:
            if len(faces) == 1:
                raise UserError(
                    f"{self.file} cannot be asked, or takes more than {MOST / 1e6:.0f} MB for a face; {EXPECTED}."
                ) from error
            half = len(faces) // 2
            return np.concatenate([self._asked(output, faces[:half]), self._asked(output, faces[half:])])
        return found

    def _check_answer(self, name: str) -> None:
        """Raises UserError where a blank face gets no probabilities of the classes, as with weights that are none."""
        shape = (1, self.side, self.side, 3)[: 4 if self.channels == 3 else 3]
        try:
            found = self.probabilities(np.zeros(shape, np.uint8))
            right = found.shape == (1, len(self.classes)) and bool(abs(found.sum() - 1) < 0.01)  # nan is not either
        except UserError:
            raise
        except Exception as error:  # the runtime's own kinds
            raise UserError(f"{name} cannot be asked ({str(error).splitlines()[0]}); {EXPECTED}.") from error
        if not right:
            raise UserError(f"{name} is no classifier: its answer to a face is no probabilities; {EXPECTED}.")

    def maps(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same faces to Grad-CAM of each one's likeliest class (B, h, w), 0 or more.

        Raises:
            UserError: the file was written without.
        """
        if MAP not in [output.name for output in self.session.get_outputs()]:
            raise UserError(f"{self.name}: the file makes no maps; that of python -m emotion.export target=web does.")
        return self._asked(MAP, faces)


@cache
def _bound_memory() -> None:
    """Once a process: what the runtime's sessions take memory from, and how much of it there is."""
    runtime = needed("onnxruntime")
    place = runtime.OrtMemoryInfo("Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT)
    runtime.create_and_register_allocator(place, runtime.OrtArenaCfg({"max_mem": MOST}))


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


def _check_whole(source: Path | bytes, name: str) -> None:
    """Raises UserError where a file is damaged, or takes its numbers from other files."""
    outside = None
    if isinstance(source, bytes):
        check_onnx(source, name)
        outside = ELSEWHERE.search(source)
    elif source.stat().st_size:
        with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            check_onnx(content, name)
            outside = ELSEWHERE.search(content)
    if outside:
        raise UserError(f"{name} names other files, to take numbers from; {EXPECTED}, whole in itself.")


def _described(text: str | None, name: str) -> dict[str, Any]:
    try:
        told = parsed(text or "null")
    except ValueError:
        told = None
    if not isinstance(told, dict) or told.get("format") != FORMAT or not _is_whole(told):
        raise UserError(f"{name} is no ONNX file of this package; {EXPECTED}.")
    return told


def _is_whole(told: Mapping[str, Any]) -> bool:
    """Whether a file says all that is to be known of it, in the right types."""
    classes, side = told.get("classes"), told.get("side")
    texts = isinstance(classes, list) and [told.get("name"), told.get("tta"), *classes]
    right = isinstance(texts, list) and len(texts) > 2 and all(isinstance(text, str) for text in texts)
    return right and type(side) is int and 0 < side <= LARGEST_SIDE and told.get("channels") in (1, 3)
