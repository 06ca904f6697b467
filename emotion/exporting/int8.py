"""A file of ONNX in whole numbers of 8 bits, where that is worth it.

Static quantisation: the ranges of all maps are found on training faces beforehand. Convolutions, linear layers and what
stands between them compute in whole numbers; preprocessing, logits and probabilities stay as they are.
"""

import contextlib
import io
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from emotion.data.datamodule import EmotionDataModule
from emotion.errors import UserError
from emotion.evaluation.score import accuracy_and_f1
from emotion.exporting.onnx import in_parts
from emotion.inference.onnx_backend import FACES, METADATA, OnnxJudge, needed
from emotion.io.atomic import write_atomically
from emotion.io.digests import sealed_onnx

WARM_UP, LEAST = 5, 20


def milliseconds(asked: Mapping[str, Callable[[], object]], seconds: float = 1.0) -> dict[str, float]:
    """The median time of each call, for about so many seconds each.

    They are called in turn, so that a machine whose speed drifts drifts for all of them.
    """
    for ask in asked.values():
        for _ in range(WARM_UP):
            ask()
    times: dict[str, list[float]] = {name: [] for name in asked}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds * len(asked) or len(next(iter(times.values()))) < LEAST:
        for name, ask in asked.items():
            started = time.perf_counter()
            ask()
            times[name].append(time.perf_counter() - started)
    return {name: 1000 * median(taken) for name, taken in times.items()}


QUANTISED = ("Conv", "Gemm", "MatMul", "Add", "MaxPool")
METHODS = ("MinMax", "Percentile")  # of the ranges; ONNX Runtime's Entropy, with 128 bins for 128 steps, is MinMax
CALIBRATION = 200  # training faces
MOST_LOST = 0.005  # of the accuracy on validation


class Part(NamedTuple):
    """Raw faces (N, ...) and their labels (N,)."""

    faces: NDArray[np.uint8]
    labels: NDArray[np.int64]


class Reader:
    """Faces, one at a time, as the calibration of ONNX Runtime asks for them."""

    def __init__(self, faces: NDArray[np.uint8]) -> None:
        self.faces: Iterator[NDArray[np.uint8]] = iter(np.split(faces, len(faces)))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next; None after the last."""
        return next(({FACES: face} for face in self.faces), None)


def write_int8(fp32: Path, path: Path, data: EmotionDataModule) -> dict[str, Any]:
    """Write `path` where it is faster than `fp32` and loses no more than half a point on validation.

    Of two ways to find the ranges, validation chooses. Faster is meant of one face on one thread.

    Returns:
        For the record, of both on validation and, once that is decided, on the test part: accuracy and macro F1 with
        their intervals; whether `path` was `kept`, and `why` not.
    """
    validation, test = (_part(data, rows) for rows in (data.split.val, data.split.test))
    drawn = np.random.default_rng(0).permutation(data.split.train)[:CALIBRATION]
    with tempfile.TemporaryDirectory() as folder:
        try:
            files = quantised(fp32, Path(folder), data.faces.images[np.sort(drawn)])
        except UserError as error:
            path.unlink(missing_ok=True)  # of a former export
            return {"kept": False, "why": str(error)}
        on_validation = {name: accuracy(OnnxJudge(file), validation) for name, file in files.items()}
        best = max(files, key=lambda name: on_validation[name]["accuracy"][0])
        chosen = {"fp32": fp32, "int8": files[best]}
        found: dict[str, Any] = {
            "calibration": {"faces": len(drawn), "ranges": best, "validation": on_validation},
            "milliseconds": _times(chosen, validation.faces[:1]),
            "validation": {"fp32": accuracy(OnnxJudge(fp32), validation), "int8": on_validation[best]},
            "test": {name: accuracy(OnnxJudge(file), test) for name, file in chosen.items()},
        }
        found["why"] = why_not(found)
        found["kept"] = found["why"] is None
        if found["kept"]:
            content = files[best].read_bytes()
            write_atomically(path, lambda temporary: temporary.write_bytes(content))
        else:
            path.unlink(missing_ok=True)
    return found


def print_int8(found: Mapping[str, Any]) -> None:
    """Both on the test part and the clock, and what was decided."""
    for name in found.get("test", ()):
        figure, lower, upper = (100 * value for value in found["test"][name]["accuracy"])
        print(
            f"{name}: {figure:.2f} % [{lower:.2f}, {upper:.2f}] on the test part, "
            f"{100 * found['validation'][name]['accuracy'][0]:.2f} % on validation, "
            f"{found['milliseconds'][name]:.2f} ms a face on one thread"
        )
    print("int8 is kept" if found["kept"] else f"int8 is not kept: {found['why']}")


def accuracy(judge: OnnxJudge, part: Part) -> dict[str, list[float]]:
    """With macro F1, each as [figure, lower, upper]."""
    predicted = torch.from_numpy(in_parts(judge.probabilities, part.faces).argmax(1))
    return accuracy_and_f1(predicted, torch.from_numpy(part.labels), len(judge.classes))


def why_not(found: Mapping[str, Any]) -> str | None:
    """What speaks against whole numbers in what `write_int8` found; None where they win."""
    lost = found["validation"]["fp32"]["accuracy"][0] - found["validation"]["int8"]["accuracy"][0]
    if lost > MOST_LOST:
        return f"it loses {100 * lost:.2f} points on validation, at most {100 * MOST_LOST:g} may be lost"
    times = found["milliseconds"]
    return None if times["int8"] < times["fp32"] else "it is not faster"


def _times(files: Mapping[str, Path], face: NDArray[np.uint8]) -> dict[str, float]:
    judges = {name: OnnxJudge(file, threads=1) for name, file in files.items()}
    return milliseconds({name: partial(judge.probabilities, face) for name, judge in judges.items()})


def _part(data: EmotionDataModule, rows: NDArray[np.int64]) -> Part:
    return Part(data.faces.images[rows], data.labels[rows].astype(np.int64))


def quantised(
    fp32: Path, folder: Path, calibration: NDArray[np.uint8], methods: Sequence[str] = METHODS
) -> dict[str, Path]:
    """A file in `folder` for each way to find the ranges on faces (N, ...), by its name.

    Raises:
        UserError: the file cannot be quantised.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # advice to programmers
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return {method: _by(method, fp32, folder, calibration) for method in methods}
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"{fp32.name} cannot be quantised: {str(error).splitlines()[0]}.") from error
    finally:
        root.setLevel(level)


def _by(method: str, fp32: Path, folder: Path, calibration: NDArray[np.uint8]) -> Path:
    theirs = needed("onnxruntime.quantization", "onnx")
    folded, found = folder / "folded.onnx", folder / f"{method}.onnx"
    needed("onnxruntime.quantization.shape_inference").quant_pre_process(fp32, folded, skip_symbolic_shape=True)
    theirs.quantize_static(
        folded, found, Reader(calibration), per_channel=True, op_types_to_quantize=list(QUANTISED),
        activation_type=theirs.QuantType.QUInt8, weight_type=theirs.QuantType.QInt8,
        calibrate_method=theirs.CalibrationMethod[method],
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"], "CalibPercentile": 99.99},
    )  # fmt: skip
    _with_metadata_of(fp32, found)
    return found


def _with_metadata_of(fp32: Path, file: Path) -> None:
    onnx = needed("onnx")
    model = onnx.load(file)
    given = {prop.key: prop.value for prop in onnx.load(fp32).metadata_props}
    onnx.helper.set_model_props(model, {METADATA: given[METADATA]})
    file.write_bytes(sealed_onnx(model.SerializeToString()))
