"""Export of trained classifiers to one ONNX file, from raw faces to calibrated probabilities.

The file includes all of evaluation: resizing, channels, normalization, test-time augmentation, temperatures and the
mean of an ensemble. Its metadata holds the classes and the run's record; see `OnnxBackend`, which reads it.
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import interpolate, one_hot

from emotion.checkpoints import portable
from emotion.checkpoints.ensemble import Ensemble
from emotion.classifier import EmotionClassifier
from emotion.data.crop import Box, crop
from emotion.data.readers.synthetic import render_faces
from emotion.data.transforms.preprocess import to_float
from emotion.data.transforms.tta import mean_probabilities, tta_logits
from emotion.errors import UserError
from emotion.explainers.explainer import normalize_magnitude
from emotion.inference.onnx_backend import FACES, FORMAT, MAP, METADATA, PROBABILITIES, OnnxBackend, import_optional
from emotion.io.atomic import make_folder, write_bytes
from emotion.records.run_record import is_synthetic, record_of_checkpoint

OPSETS = (20, 18)
"""Opsets to try: 20 has GELU as one operator, 18 is the exporter's native one."""

MAX_DIFFERENCE = 1e-3
"""Largest difference between a probability and PyTorch's."""

BATCH_SIZE = 64
MIN_HALVED_SIZE = 1024  # elements of a tensor

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Raw faces (B, ...) to probabilities (B, K)."""


class Parity(NamedTuple):
    """How probabilities compare with the checkpoint's on some faces."""

    faces: int
    max_difference: float  # of a probability
    agreement: float  # fraction of faces with the same predicted class

    def __str__(self) -> str:
        """Return the comparison as the end of a sentence."""
        return (
            f"probabilities differ from the checkpoint's by at most {self.max_difference:.1e}, "
            f"{100 * self.agreement:.1f} % of the predictions are the same"
        )


class ExportedNetwork(nn.Module):
    """The exported computation on raw faces of `side` pixels; with `cam` it also outputs a map."""

    def __init__(self, ensemble: Ensemble, tta: str, cam: bool, side: int) -> None:
        super().__init__()
        self.ensemble, self.tta, self.side = ensemble, tta, side
        self.gradients = nn.ModuleList(map(trace_gradient, ensemble.members)) if cam else None

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return probabilities (B, K) of raw uint8 faces (B, S, S) or (B, S, S, 3), and with `cam` a map (B, h, w).

        The map is Grad-CAM of the predicted class on the network's `features`, laid over the whole face. The map of an
        ensemble is the mean of its members' maps, each scaled to a maximum of 1, as in `EnsembleExplainer`.
        """
        members = self.ensemble.members
        faces = [member.preprocess.shrink(to_float(pixels)) for member in members]
        outputs = []
        for member, each in zip(members, faces, strict=True):
            logits = tta_logits(member.net, member.preprocess.prepare, each, [self.tta])[self.tta]
            outputs.append(mean_probabilities(logits, member.temperature))
        probabilities = outputs[0] if len(outputs) == 1 else torch.stack(outputs).mean(0)
        if self.gradients is None:
            return probabilities
        predicted = one_hot(probabilities.argmax(1), probabilities.shape[1]).float()
        inputs = [member.preprocess.prepare(each) for member, each in zip(members, faces, strict=True)]
        maps = [self._map(*each, predicted) for each in zip(members, self.gradients, inputs, strict=True)]
        if len(maps) == 1:
            return probabilities, maps[0]
        largest = max(member_maps.shape[-1] for member_maps in maps)
        return probabilities, torch.stack([_resize(normalize_magnitude(one), largest) for one in maps]).mean(0)

    def _map(self, member: EmotionClassifier, gradient: nn.Module, faces: Tensor, predicted: Tensor) -> Tensor:
        features, preprocess = member.net.features(faces), member.preprocess
        weights = gradient(features.contiguous(), predicted).mean((2, 3), keepdim=True)  # traced on contiguous maps
        maps: Tensor = (weights * features).sum(1).relu()
        if preprocess.zoomed_size == preprocess.size:
            return maps
        return preprocess.maps_to_faces(_resize(maps, preprocess.size), self.side, self.side)


def export_onnx(
    ensemble: Ensemble,
    path: Path,
    tta: str = "none",
    cam: bool = False,
    half: bool = False,
    faces: NDArray[np.uint8] | None = None,
    opsets: Sequence[int] = OPSETS,
) -> tuple[Parity, int]:
    """Write an ONNX file after checking that its probabilities match PyTorch's; moves the ensemble to the CPU.

    Args:
        ensemble: One or more classifiers.
        path: The file to write.
        tta: Test-time augmentation inside the file.
        cam: Whether the file has the second output `map`.
        half: Whether to store weights in half precision where that is lossless.
        faces: Faces (N, side, side) or (N, side, side, 3) to compare on; None for synthetic faces.
        opsets: Tried in order until one succeeds; prints why the others failed.

    Returns:
        The comparison with PyTorch, and the opset of the file.

    Raises:
        UserError: The network cannot be exported; nothing is written.
    """
    onnx = import_optional("onnx")
    import_optional("onnxruntime", "onnxscript")
    ensemble = ensemble.cpu().eval().requires_grad_(False)
    side, channels = ensemble.source_shape
    faces = synthetic_faces(side, channels) if faces is None else faces
    example = torch.from_numpy(faces[:2] if len(faces) > 1 else np.concatenate([faces, faces]))
    program = _trace(ExportedNetwork(ensemble, tta, cam, side).eval(), example)
    metadata = json.dumps(_metadata(ensemble, tta, side, channels))
    failures = []
    for opset in opsets:
        try:
            model = _convert(program, opset, [PROBABILITIES, MAP] if cam else [PROBABILITIES])
            if half:
                halve_weights(model)
            onnx.helper.set_model_props(model, {METADATA: metadata})
            onnx.checker.check_model(model)
            content = model.SerializeToString()
            predicted = run_in_batches(OnnxBackend(content, tta).probabilities, faces)
            parity = compare_probabilities(torch_probabilities(ensemble, faces, tta), predicted)
        except Exception as error:  # of the exporter, the checker or the runtime
            failures.append(f"opset {opset}: {type(error).__name__}: {_root_message(error)}")
            print(failures[-1], flush=True)
            continue
        if parity.max_difference <= MAX_DIFFERENCE:
            make_folder(path.parent)
            write_bytes(path, content)
            return parity, opset
        failures.append(
            f"opset {opset}: a probability differs from PyTorch's by {parity.max_difference:.2g}, expected at most "
            f"{MAX_DIFFERENCE:g}"
        )
        print(failures[-1], flush=True)
    raise _not_exportable(ensemble, "; ".join(failures))


def compare_probabilities(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> Parity:
    """Compare probabilities (N, K)."""
    agreement = (expected.argmax(1) == actual.argmax(1)).mean()
    return Parity(len(expected), float(np.abs(expected - actual).max()), float(agreement))


def torch_probabilities(ensemble: Ensemble, faces: NDArray[np.uint8], tta: str = "none") -> NDArray[np.float32]:
    """Return an ensemble's probabilities (N, K) of raw faces."""
    return run_in_batches(lambda batch: ensemble.probabilities(torch.from_numpy(batch), tta).cpu().numpy(), faces)


def run_in_batches(predict: Predict, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return probabilities (N, K) of raw faces (N, ...)."""
    return np.concatenate([predict(faces[start : start + BATCH_SIZE]) for start in range(0, len(faces), BATCH_SIZE)])


def synthetic_faces(side: int, channels: int, count: int = 14) -> NDArray[np.uint8]:
    """Return synthetic faces (count, side, side) or (count, side, side, 3), cycling through the emotions."""
    faces = render_faces((np.arange(count) % 7).astype(np.uint8), np.random.default_rng(0))
    images = [np.repeat(face[..., None], 3, axis=2) for face in faces]
    return np.stack([crop(image, Box(0, 0, len(image), 1), side, channels) for image in images])


def trace_gradient(member: EmotionClassifier) -> nn.Module:
    """Trace the gradient of the head's logits as a graph without autograd, which ONNX lacks.

    The module takes feature maps (B, c, h, w) and a one-hot class (B, K), and returns the logit's gradient in the maps.
    """
    preprocess, head = member.preprocess, member.net.head
    with torch.no_grad():
        face = torch.zeros(2, preprocess.channels, preprocess.size, preprocess.size)
        maps: Tensor = member.net.features(face).contiguous()

    def gradient(maps: Tensor, chosen: Tensor) -> Tensor:
        result: Tensor = torch.func.vjp(head, maps)[1](chosen)[0]
        return result

    chosen = maps.new_zeros(2, len(member.classes))
    decompositions = core_aten_decompositions() | {torch.ops.aten.convolution_backward.default: _convolution_backward}
    trace = make_fx(gradient, decomposition_table=decompositions, tracing_mode="symbolic", _allow_non_fake_inputs=True)
    graph: nn.Module = trace(maps, chosen)
    return graph


def _convolution_backward(  # the operator's signature
    gradient: Tensor, maps: Tensor, weight: Tensor, bias_sizes: object, stride: list[int], padding: list[int],
    dilation: list[int], transposed: bool, output_padding: list[int], groups: int, output_mask: object,
) -> tuple[Tensor, None, None]:  # fmt: skip
    """Express the input gradient of a convolution with stride 1, which some heads of timm contain, as a convolution."""
    settings = (stride, padding, dilation, not transposed, output_padding, groups)
    result = torch.ops.aten.convolution(gradient, weight, None, *settings)
    return result.view_as(maps), None, None


def _trace(network: ExportedNetwork, example: Tensor) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except (RuntimeError, ValueError, TypeError) as error:  # base classes of torch's own errors
        raise _not_exportable(network.ensemble, _root_message(error)) from error


def _convert(program: torch.export.ExportedProgram, opset: int, outputs: Sequence[str]) -> Any:  # noqa: ANN401
    """Return an onnx.ModelProto with a free batch size, without stack traces, which contain local paths."""
    for library in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    exported = torch.onnx.export(
        program, dynamo=True, opset_version=opset, input_names=[FACES], output_names=outputs, verbose=False
    )
    assert exported is not None
    model = exported.model_proto
    found = {entry.domain: entry.version for entry in model.opset_import}[""]
    if found != opset:
        raise RuntimeError(f"the exporter produced opset {found}")
    model.graph.name = "emotion"
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    for part in (model.graph, *model.graph.node, *values):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    symbol = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param  # such as s81
    for dimension in (dimension for value in values for dimension in value.type.tensor_type.shape.dim):
        if dimension.dim_param:
            dimension.dim_param = dimension.dim_param.replace(symbol, "batch")
    return model


def halve_weights(model: Any) -> None:  # noqa: ANN401
    """Store the weights of an onnx.ModelProto in half precision where that is lossless; it computes in float32.

    It is lossless for all weights that were loaded from half-precision .safetensors.
    """
    onnx = import_optional("onnx")
    casts = []
    for weights in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weights)
        if values.dtype != np.float32 or values.size < MIN_HALVED_SIZE:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.array_equal(half.astype(np.float32), values):
            name = weights.name
            weights.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [weights.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _metadata(ensemble: Ensemble, tta: str, side: int, channels: int) -> dict[str, Any]:
    records = [record_of_checkpoint(loaded) for loaded in ensemble.loaded]
    contents = [record.to_dict() if record else None for record in records]
    metadata: dict[str, Any] = portable.without_absolute_paths(
        {"format": FORMAT, "name": ensemble.name, "classes": ensemble.classes}
        | {"side": side, "channels": channels, "tta": tta}
        | ensemble.summary()
        | {"synthetic": is_synthetic(ensemble.loaded)}
        | {"record": contents if len(contents) > 1 else contents[0]}
    )
    return metadata


def _resize(maps: Tensor, side: int) -> Tensor:
    return maps if maps.shape[-1] == side else interpolate(maps[:, None], (side, side), mode="bilinear")[:, 0]


def _not_exportable(ensemble: Ensemble, reason: str) -> UserError:
    return UserError(
        f"{ensemble.name} cannot be exported as ONNX, nothing is written: {reason}. Export its weights instead: "
        f"target=weights."
    )


def _root_message(error: BaseException) -> str:
    """Return the first line of the root cause; the exporter's own messages begin with advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line for line in str(error).splitlines() if line.strip()), "no reason given").strip()
