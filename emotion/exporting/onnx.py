"""Trained classifiers as a file of ONNX that takes raw faces and returns calibrated probabilities.

Everything that evaluation does is inside: resizing, channels, normalisation, test-time views, temperatures, the mean of
several. What the file is, its classes and the record of its run stand in its metadata; see `OnnxJudge`, which asks it.
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
from emotion.data.readers.synthetic import draw
from emotion.data.transforms.tta import averaged, logits
from emotion.errors import UserError
from emotion.inference.detectors import Box, crop
from emotion.inference.onnx_backend import FACES, FORMAT, MAP, METADATA, PROBABILITIES, OnnxJudge, needed
from emotion.io.atomic import write_atomically
from emotion.io.digests import sealed_onnx
from emotion.records import run_record


def gradient_of(member: EmotionClassifier) -> nn.Module:
    """Maps (B, c, h, w) of its network's `features` and a one-hot (B, K) to the chosen logits' gradient in those maps.

    B is free.
    """
    takes, head = member.preprocess, member.net.head
    with torch.no_grad():
        maps: Tensor = member.net.features(torch.zeros(2, takes.channels, takes.size, takes.size)).contiguous()

    def gradient(maps: Tensor, chosen: Tensor) -> Tensor:
        found: Tensor = torch.func.vjp(head, maps)[1](chosen)[0]
        return found

    chosen = maps.new_zeros(2, len(member.classes))
    parts = core_aten_decompositions() | {torch.ops.aten.convolution_backward.default: _turned_round}
    trace = make_fx(gradient, decomposition_table=parts, tracing_mode="symbolic", _allow_non_fake_inputs=True)
    graph: nn.Module = trace(maps, chosen)
    return graph


def _turned_round(  # the names are the operator's
    gradient: Tensor, maps: Tensor, weight: Tensor, bias_sizes: object, stride: list[int], padding: list[int],
    dilation: list[int], transposed: bool, output_padding: list[int], groups: int, output_mask: object,
) -> tuple[Tensor, None, None]:  # fmt: skip
    """The gradient of a convolution of stride 1, such as some heads of timm have; none of its weights is asked for."""
    settings = (stride, padding, dilation, not transposed, output_padding, groups)
    found = torch.ops.aten.convolution(gradient, weight, None, *settings)
    return found.view_as(maps), None, None


OPSETS = (20, 18)
"""Tried in turn: 20 has GELU as one operator; 18 is what the exporter itself is written in."""

MOST = 1e-3
"""By how much a probability may differ from torch's."""


class Parity(NamedTuple):
    """How a file's probabilities compare to torch's on some faces."""

    faces: int
    largest: float  # difference of any probability
    same: float  # share of faces whose likeliest class is the same
    opset: int


class Whole(nn.Module):
    """What a file does: raw uint8 faces (B, S, S) or (B, S, S, 3) to probabilities (B, K), and a map where asked.

    The map (B, h, w) is Grad-CAM of the likeliest class on the network's `features`, over the whole face; 0 is nothing.
    Several networks' are scaled to a largest value of 1 and averaged, as `Explainer` does.
    """

    def __init__(self, ensemble: Ensemble, tta: str, cam: bool, side: int) -> None:
        super().__init__()
        self.ensemble, self.tta, self.side = ensemble, tta, side
        self.gradients = nn.ModuleList(map(gradient_of, ensemble.members)) if cam else None

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Probabilities; with `cam` the map besides."""
        members = self.ensemble.members
        taken = [one.preprocess(pixels) for one in members]
        found = [
            averaged(logits(one.net, faces, self.tta), one.temperature)
            for one, faces in zip(members, taken, strict=True)
        ]
        probabilities = found[0] if len(found) == 1 else torch.stack(found).mean(0)
        if self.gradients is None:
            return probabilities
        chosen = one_hot(probabilities.argmax(1), probabilities.shape[1]).float()
        maps = [self._map(*each, chosen) for each in zip(members, self.gradients, taken, strict=True)]
        if len(maps) == 1:
            return probabilities, maps[0]
        largest = max(one.shape[-1] for one in maps)
        scaled = [one / one.amax((1, 2), keepdim=True).clamp(min=1e-12) for one in maps]
        return probabilities, torch.stack([_resized(one, largest) for one in scaled]).mean(0)

    def _map(self, member: EmotionClassifier, gradient: nn.Module, faces: Tensor, chosen: Tensor) -> Tensor:
        features, takes = member.net.features(faces), member.preprocess
        weights = gradient(features.contiguous(), chosen).mean((2, 3), keepdim=True)  # as it was traced
        found: Tensor = (weights * features).sum(1).relu()
        if takes.zoomed == takes.size:
            return found
        return takes.lay_back(_resized(found, takes.size), self.side, self.side)


def export_onnx(
    ensemble: Ensemble,
    path: Path,
    tta: str = "none",
    cam: bool = False,
    faces: NDArray[np.uint8] | None = None,
    opsets: Sequence[int] = OPSETS,
) -> Parity:
    """Write `path`, whose probabilities on `faces` have been found to be torch's; moves the ensemble to the CPU.

    Args:
        ensemble: one classifier or several.
        path: of the file; everything is in it.
        tta: test-time views that it averages over.
        cam: whether it has the second output, `map`.
        faces: (N, side, side), or (N, side, side, 3) of three channels, to compare on; drawn ones otherwise.
        opsets: tried in turn until the file is right; says why each failed.

    Raises:
        UserError: none will do; nothing is written then.
    """
    onnx = needed("onnx")
    needed("onnxruntime", "onnxscript")
    ensemble = ensemble.cpu().eval().requires_grad_(False)
    side, channels = ensemble.stored
    faces = drawn(side, channels) if faces is None else faces
    example = torch.from_numpy(faces[:2] if len(faces) > 1 else np.concatenate([faces, faces]))
    traced = _traced(Whole(ensemble, tta, cam, side).eval(), example)
    description = json.dumps(_described(ensemble, tta, side, channels))
    failed = []
    for opset in opsets:
        try:
            model = _model(traced, opset, [PROBABILITIES, MAP] if cam else [PROBABILITIES])
            onnx.helper.set_model_props(model, {METADATA: description})
            onnx.checker.check_model(model)
            content = sealed_onnx(model.SerializeToString())
            parity = compare(ensemble, OnnxJudge(content, tta), faces, tta)._replace(opset=opset)
        except Exception as error:  # whatever the exporter, the checker or the runtime stumble over
            failed.append(f"opset {opset}: {type(error).__name__}: {_first_line(error)}")
            print(failed[-1], flush=True)
            continue
        if parity.largest <= MOST:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda temporary: temporary.write_bytes(content))  # noqa: B023
            return parity
        failed.append(f"opset {opset}: probabilities differ by {parity.largest:.2g} from torch's, at most {MOST:g} may")
        print(failed[-1], flush=True)
    raise UserError(
        f"{path.name}: {ensemble.name} cannot be had as ONNX, nothing is written: {'; '.join(failed)}. "
        f"Its weights can be: target=weights."
    )


def compare(ensemble: Ensemble, judge: OnnxJudge, faces: NDArray[np.uint8], tta: str) -> Parity:
    """The file's probabilities against torch's."""
    ours, theirs = torch_says(ensemble, faces, tta), in_parts(judge.probabilities, faces)
    return Parity(len(faces), *differences(ours, theirs), 0)


def differences(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> tuple[float, float]:
    """Of two (N, K): the largest difference of a probability, and the share of faces with the same likeliest class."""
    return float(np.abs(ours - theirs).max()), float((ours.argmax(1) == theirs.argmax(1)).mean())


def torch_says(ensemble: Ensemble, faces: NDArray[np.uint8], tta: str = "none") -> NDArray[np.float32]:
    """An ensemble's probabilities (N, K) of raw faces."""
    return in_parts(lambda some: ensemble.probabilities(torch.from_numpy(some), tta).cpu().numpy(), faces)


def in_parts(ask: Callable[[NDArray[np.uint8]], NDArray[np.float32]], faces: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What `ask` says of faces (N, ...), some at a time."""
    return np.concatenate([ask(faces[start : start + 64]) for start in range(0, len(faces), 64)])


def drawn(side: int, channels: int, count: int = 14) -> NDArray[np.uint8]:
    """Drawn faces (count, side, side) or (count, side, side, 3), of all emotions in turn."""
    faces = draw((np.arange(count) % 7).astype(np.uint8), np.random.default_rng(0))
    pictures = [np.repeat(face[..., None], 3, axis=2) for face in faces]
    return np.stack([crop(picture, Box(0, 0, len(picture), 1), side, channels) for picture in pictures])


def _traced(whole: Whole, example: Tensor) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(whole, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except (RuntimeError, ValueError, TypeError) as error:  # torch's own kinds are such
        raise UserError(
            f"{whole.ensemble.name} cannot be had as ONNX: {_first_line(error)}. Its weights can be: target=weights."
        ) from error


def _model(traced: torch.export.ExportedProgram, opset: int, outputs: Sequence[str]) -> Any:  # noqa: ANN401
    """An onnx.ModelProto with a free number of faces; without traces, which name places on this machine."""
    for library in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # what counts of it is said in our words
    program = torch.onnx.export(
        traced, dynamo=True, opset_version=opset, input_names=[FACES], output_names=outputs, verbose=False
    )
    assert program is not None
    model = program.model_proto
    found = {one.domain: one.version for one in model.opset_import}[""]
    if found != opset:
        raise RuntimeError(f"the exporter made opset {found}")
    model.graph.name = "emotion"
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def _first_line(error: BaseException) -> str:
    """Of the error that it all began with: the exporter's own begin with advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line for line in str(error).splitlines() if line.strip()), "no reason given").strip()


def _resized(maps: Tensor, side: int) -> Tensor:
    if maps.shape[-1] == side:
        return maps
    return interpolate(maps[:, None], (side, side), mode="bilinear")[:, 0]


def _described(ensemble: Ensemble, tta: str, side: int, channels: int) -> dict[str, Any]:
    records = [run_record.record_of(one) for one in ensemble.loaded]
    told = ensemble.described() | {"record": records if len(records) > 1 else records[0]}
    head = {"format": FORMAT, "name": ensemble.name, "classes": ensemble.classes, "side": side}
    described: dict[str, Any] = portable.without_places(head | {"channels": channels, "tta": tta} | told)
    return described
