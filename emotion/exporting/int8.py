"""Static int8 quantization of an ONNX file, kept only where it pays off.

Activation ranges are calibrated on training faces. Convolutions, linear layers and the operators between them compute
in int8; preprocessing, logits and probabilities stay in float32. Weights have 7 bits, since processors without VNNI
saturate sums of two products of 8 bits: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
"""

import contextlib
import io
import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emotion.data.datamodule import EmotionDataModule
from emotion.errors import UserError, first_line
from emotion.evaluation.score import accuracy_and_f1
from emotion.exporting.onnx import run_in_batches
from emotion.inference.onnx_backend import FACES, METADATA, PROBABILITIES, OnnxBackend, import_optional
from emotion.io.atomic import write_bytes

QUANTIZED_OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "MaxPool")
CALIBRATION_METHODS = ("MinMax", "Percentile")  # ONNX Runtime's Entropy, with 128 bins for 128 steps, equals MinMax
CALIBRATION_FACES = 200
MAX_ACCURACY_LOSS = 0.005  # on validation
WARMUP_CALLS, MIN_CALLS = 5, 20

Scores = Mapping[str, Sequence[float]]
"""accuracy and macro_f1 as [value, lower, upper]."""


@dataclass(frozen=True)
class Int8Report:
    """How int8 compares with float32, and whether the int8 file is kept."""

    kept: bool
    reason: str | None  # why it is not kept
    calibration: dict[str, Any] = field(default_factory=dict)  # faces, chosen method, validation scores by method
    milliseconds: dict[str, float] = field(default_factory=dict)  # median per face on one thread, of fp32 and int8
    validation: dict[str, Scores] = field(default_factory=dict)  # of fp32 and int8
    test: dict[str, Scores] = field(default_factory=dict)  # of fp32 and int8

    def print(self) -> None:
        """Print test scores and times of both files, and the decision."""
        for name, scores in self.test.items():
            accuracy, lower, upper = (100 * value for value in scores["accuracy"])
            print(
                f"{name}: test accuracy {accuracy:.2f} % [{lower:.2f}, {upper:.2f}], validation accuracy "
                f"{100 * self.validation[name]['accuracy'][0]:.2f} %, {self.milliseconds[name]:.2f} ms per face on one "
                f"thread"
            )
        print("int8 is kept" if self.kept else f"int8 is not kept: {self.reason}")


def export_int8(fp32: Path, path: Path, data: EmotionDataModule) -> Int8Report:
    """Quantize `fp32` and write the result to `path` if it is faster and at most half a point less accurate.

    Validation chooses the calibration method. Speed is that of one face on one thread. A network that cannot be
    quantized is reported as not kept.
    """
    sampled = np.random.default_rng(0).permutation(data.rows("train"))[:CALIBRATION_FACES]
    with tempfile.TemporaryDirectory() as folder:
        try:
            files = quantize(fp32, Path(folder), data.faces.images[np.sort(sampled)])
        except UserError as error:
            return Int8Report(kept=False, reason=str(error))
        by_method = {method: _evaluate(file, data, data.rows("val")) for method, file in files.items()}
        best = max(files, key=lambda method: by_method[method]["accuracy"][0])
        validation = {"fp32": _evaluate(fp32, data, data.split.val), "int8": by_method[best]}
        compared, face = {"fp32": fp32, "int8": files[best]}, data.faces.images[data.split.val[:1]]
        milliseconds = median_milliseconds(
            {name: partial(OnnxBackend(file, threads=1).probabilities, face) for name, file in compared.items()}
        )
        accuracies = {name: scores["accuracy"][0] for name, scores in validation.items()}
        reason = rejection_reason(accuracies, milliseconds)
        report = Int8Report(
            kept=reason is None,
            reason=reason,
            calibration={"faces": len(sampled), "method": best, "validation": by_method},
            milliseconds=milliseconds,
            validation=validation,
            test={name: _evaluate(file, data, data.rows("test")) for name, file in compared.items()},
        )
        if report.kept:
            write_bytes(path, files[best].read_bytes())
    return report


def rejection_reason(accuracies: Mapping[str, float], milliseconds: Mapping[str, float]) -> str | None:
    """Return why int8 is not kept, from validation accuracy and time of fp32 and int8; None if it is."""
    loss = accuracies["fp32"] - accuracies["int8"]
    if loss > MAX_ACCURACY_LOSS:
        return f"it loses {100 * loss:.2f} points on validation, expected at most {100 * MAX_ACCURACY_LOSS:g}"
    return None if milliseconds["int8"] < milliseconds["fp32"] else "it is not faster"


def quantize(
    fp32: Path, folder: Path, calibration: NDArray[np.uint8], methods: Sequence[str] = CALIBRATION_METHODS
) -> dict[str, Path]:
    """Write a quantized file to `folder` per calibration method of ONNX Runtime; return them by method.

    `calibration` are raw faces (N, ...).

    Raises:
        UserError: The file cannot be quantized.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # the quantizer logs advice
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return {method: _quantize(method, fp32, folder, calibration) for method in methods}
    except Exception as error:  # whatever the quantizer raises
        raise UserError(f"{fp32.name} cannot be quantized: {first_line(error)}.") from error
    finally:
        root.setLevel(level)


def median_milliseconds(functions: Mapping[str, Callable[[], object]], seconds: float = 1.0) -> dict[str, float]:
    """Return the median time per call of each function, measured for about `seconds` each.

    The functions alternate so that a drift of the machine's speed affects all of them.
    """
    for function in functions.values():
        for _ in range(WARMUP_CALLS):
            function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    start = time.perf_counter()
    while time.perf_counter() - start < seconds * len(functions) or len(next(iter(times.values()))) < MIN_CALLS:
        for name, function in functions.items():
            call_start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - call_start)
    return {name: 1000 * median(values) for name, values in times.items()}


def _evaluate(file: Path, data: EmotionDataModule, rows: NDArray[np.int64]) -> Scores:
    backend = OnnxBackend(file)
    predicted = run_in_batches(backend.probabilities, data.faces.images[rows]).argmax(1)
    labels = torch.from_numpy(data.labels[rows].astype(np.int64))
    return accuracy_and_f1(torch.from_numpy(predicted), labels, len(backend.classes))


def _quantize(method: str, fp32: Path, folder: Path, calibration: NDArray[np.uint8]) -> Path:
    onnx, quantization = import_optional("onnx"), import_optional("onnxruntime.quantization")
    faces = ({FACES: face} for face in np.split(calibration, len(calibration)))
    folded, path = folder / "folded.onnx", folder / f"{method}.onnx"
    shape_inference = import_optional("onnxruntime.quantization.shape_inference")
    shape_inference.quant_pre_process(fp32, folded, skip_symbolic_shape=True)
    quantization.quantize_static(
        folded, path, SimpleNamespace(get_next=lambda: next(faces, None)), per_channel=True, reduce_range=True,
        op_types_to_quantize=list(QUANTIZED_OPERATORS), nodes_to_exclude=_nodes_of_map_only(onnx.load(folded)),
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod[method],
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"], "CalibPercentile": 99.99},
    )  # fmt: skip
    metadata = {prop.key: prop.value for prop in onnx.load(fp32).metadata_props}  # which the quantizer drops
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA: metadata[METADATA]})
    path.write_bytes(model.SerializeToString())
    return path


def _nodes_of_map_only(model: Any) -> list[str]:  # noqa: ANN401
    """Return the nodes of an onnx.ModelProto that compute Grad-CAM and not the probabilities."""
    needed, rest = {PROBABILITIES}, []
    for node in reversed(model.graph.node):  # which are in the order of computation
        if needed.intersection(node.output):
            needed.update(node.input)
        else:
            rest.append(node.name)
    return rest
