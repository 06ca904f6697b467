"""Malicious files: they run commands, expand without limit, announce false sizes, or hold NaN."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from safetensors.torch import load, save

from emotion.checkpoints import portable
from emotion.checkpoints.checkpoint_io import save_checkpoint
from emotion.checkpoints.load import read_checkpoint
from emotion.checkpoints.locate import BEST_CHECKPOINT
from emotion.inference.onnx_backend import FACES, FORMAT, METADATA, PROBABILITIES
from emotion.io.atomic import write_json
from emotion.io.digests import file_digest

CANARY = "canary"
COMMAND = f"touch {CANARY}".encode()
HUGE = 3 * 10**9
Content = dict[str, Any]


def _text(content: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(content)) + content


def _call(module: bytes, name: bytes, *arguments: bytes) -> bytes:
    return b"c" + module + b"\n" + name + b"\n(" + b"".join(arguments) + b"tR"


def _number(value: int) -> bytes:
    return b"\x8a\x08" + value.to_bytes(8, "little")


def _hex(times: int) -> bytes:
    """Text that doubles its length `times` times."""
    inner = _call(b"_codecs", b"encode", _text(b"a" * 1000), _text(b"latin1"))
    for _ in range(times):
        inner = _call(b"_codecs", b"encode", inner, _text(b"hex"))
    return inner


def _storage(numel: int) -> bytes:
    return b"(" + _text(b"storage") + b"ctorch\nFloatStorage\n" + _text(b"0") + _text(b"cpu") + _number(numel) + b"tQ"


STACKED = b"\x8c\x05posix\x8c\x06system\x93" + _text(COMMAND) + b"\x85R"
PICKLES = {
    "system": _call(b"posix", b"system", _text(COMMAND)),
    "os": _call(b"os", b"system", _text(COMMAND)),
    "exec": _call(b"builtins", b"exec", _text(b"open('canary', 'w')")),
    "eval in Python 2's name": _call(b"__builtin__", b"eval", _text(b"open('canary', 'w')")),
    "stacked names": STACKED,
    "an instance": b"(" + _text(COMMAND) + b"iposix\nsystem\n",
    "an object": b"(cposix\nsystem\n" + _text(COMMAND) + b"o",
    "a new object": b"cposix\nsystem\n" + _text(COMMAND) + b"\x85\x81",
    "nested": b"}" + _text(b"state_dict") + b"}" + _text(b"net.w") + STACKED + b"ss",
    "torch.hub": _call(b"torch.hub", b"load", _text(b".")),
    "bytes": _call(b"builtins", b"bytearray", _number(HUGE)),
    "doubled text": _hex(22),
    "a deep list": b"]" * 100_000 + b"a" * 99_999,
}  # fmt: skip


def _of_torch(body: bytes, **entries: bytes) -> bytes:
    """A zip archive like torch.save's with this pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in ({"data.pkl": b"\x80\x02" + body + b".", "version": b"3\n"} | entries).items():
            archive.writestr(f"x/{name}", content)
    return file.getvalue()


def _of_old_torch(body: bytes) -> bytes:
    """The format of torch before 1.6."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    start = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system))
    return start + b"\x80\x02" + body + b"." + pickle.dumps(["0"], 2) + struct.pack("<q", HUGE)


def _bomb(member: str) -> bytes:
    """A gigabyte of zeros compressed to a few megabytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + _storage(HUGE // 10) + b".")
        archive.writestr("x/version", b"3\n")
        with archive.open(member, "w", force_zip64=True) as packed:
            for _ in range(120):
                packed.write(bytes(10**7))
    return file.getvalue()


def _announce_4_gb(content: bytes) -> bytes:
    """The archive with a directory in which the first member has four gigabytes."""
    at = content.index(b"PK\x01\x02")
    return content[: at + 20] + b"\xfe\xff\xff\xff" * 2 + content[at + 28 :]


RAW: dict[str, Callable[[], bytes]] = {
    **{f"{name}, in an archive": partial(_of_torch, body) for name, body in PICKLES.items()},
    **{f"{name}, in the old format": partial(_of_old_torch, body) for name, body in list(PICKLES.items())[:6]},
    **{f"{name}, bare": partial(bytes, b"\x80\x04" + body + b".") for name, body in list(PICKLES.items())[:4]},
    "a storage of a false size, in the old format": partial(_of_old_torch, _storage(HUGE)),
    "a bomb": partial(_bomb, "x/data/0"),
    "a bomb of a pickle": partial(_bomb, "x/data2.pkl"),
    "a directory of false sizes": lambda: _announce_4_gb(_of_torch(PICKLES["system"])),
    "nothing": bytes,
}  # fmt: skip
"""Functions that make a file for torch.load, by what is wrong with it."""


def _billion_laughs() -> list[Any]:
    """Nested lists with a billion items, sharing their parts."""
    items: list[Any] = ["ha"]
    for _ in range(9):
        items = [items] * 10
    return items


def _recursive_list() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def _weights(value: float) -> Callable[[Content], None]:
    def changed(content: Content) -> None:
        content["state_dict"] = {name: weights.clone() for name, weights in content["state_dict"].items()}
        first = next(weights for weights in content["state_dict"].values() if weights.is_floating_point())
        first.view(-1)[0] = value

    return changed


def _set(part: str, name: str, value: Callable[[], object]) -> Callable[[Content], None]:
    return lambda content: content[part].__setitem__(name, value())


def _widths(content: Content) -> None:
    content["hyper_parameters"]["model"]["widths"] = [50_000, 50_000]


def _view(content: Content) -> None:
    name = next(iter(content["state_dict"]))
    content["state_dict"][name] = torch.zeros(1).expand(HUGE)


CHANGED: dict[str, Callable[[Content], None]] = {
    "NaN among the weights": _weights(float("nan")),
    "infinity among the weights": _weights(float("inf")),
    "a temperature of NaN": _set("hyper_parameters", "temperature", lambda: float("nan")),
    "a temperature of 0": _set("hyper_parameters", "temperature", lambda: 0),
    "a network of 90 GB": _widths,
    "a view of 12 GB": _view,
    "a billion laughs": _set("hyper_parameters", "loss", _billion_laughs),
    "a list that contains itself": _set("datamodule_hyper_parameters", "augment", _recursive_list),
    "a text for the network": _set("hyper_parameters", "model", lambda: "network"),
    "a number for the classes": _set("hyper_parameters", "classes", lambda: 7),
    "nothing for the input": _set("hyper_parameters", "input", dict),
    "a list for the weights": lambda content: content.update(state_dict=[1, 2]),
    "texts for the weights": lambda content: content.update(state_dict=dict.fromkeys(content["state_dict"], "w")),
    "a text for the data": lambda content: content.update(EmotionDataModule="data"),
}
"""Changes to an otherwise valid checkpoint."""


def changed_checkpoint(run: Path, kind: str, path: Path) -> None:
    entries = read_checkpoint(run / BEST_CHECKPOINT).entries()
    CHANGED[kind](entries)
    save_checkpoint(entries, path)


def _header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


SAFETENSORS: dict[str, bytes] = {
    "a header of 2**62 bytes": _header(b"{}", 2**62),
    "a header of 99 MB": _header(b"{}", 99_000_000),
    "a false shape": _header(b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}') + b"1234",
    "a header nested deep": _header(b"[" * 100_000),
    "offsets beyond the end": _header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[90000,90036]}}'),
}
DEEP = "[" * 100_000 + "]" * 100_000
DESCRIPTIONS: dict[str, Callable[[str], str]] = {
    "nested deep": lambda text: DEEP,
    "nested deep within": lambda text: text.replace('"epoch":', f'"deep": {"[" * 500 + "]" * 500}, "epoch":'),
    "of a network of 90 GB": lambda text: json.dumps(_with_widths(json.loads(text))),
    "of other types": lambda text: text.replace('"hyper_parameters": {', '"hyper_parameters": [], "_": {'),
    "too long": lambda text: text.replace('"epoch":', f'"long": "{"x" * 5_000_000}", "epoch":'),
    "no UTF-8": lambda text: "\x80",
}


def _with_widths(content: Content) -> Content:
    _widths(content)
    return content


def export_weights(run: Path, weights: Path) -> None:
    """Export the run's weights with their description."""
    portable.write(weights, weights.with_suffix(".json"), read_checkpoint(run / BEST_CHECKPOINT), None)


def update_digest(weights: Path) -> None:
    """Store the digest of malicious weights in their description, unless that is not JSON."""
    path = weights.with_suffix(".json")
    with suppress(ValueError, RecursionError):
        write_json(path, json.loads(path.read_text()) | {"weights": file_digest(weights)})


def nan_weights(weights: Path) -> None:
    state = load(weights.read_bytes())
    for value in (value for value in state.values() if value.is_floating_point()):
        value.fill_(np.nan)
    weights.write_bytes(save(state))


def sparse(path: Path, size: int) -> None:
    """Extend a file to `size` bytes without using disk space."""
    with path.open("ab") as file:
        file.truncate(size)


def _metadata() -> Content:
    classes = ["a", "b", "c"]
    return {"format": FORMAT, "name": "x", "classes": classes, "side": 48, "channels": 1, "tta": "none"}


def onnx_file(path: Path, kind: str) -> None:
    """Write a linear classifier as ONNX with something wrong; it is valid for any other `kind`."""
    weights = numpy_helper.from_array(np.full((48 * 48, 3), 1e-4, np.float32), "w")
    metadata = _metadata()
    if kind in EXTERNAL:
        numbers = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[48 * 48, 3], data_location=1)
        for key, value in {"location": EXTERNAL[kind], "offset": "0", "length": "27648"}.items():
            entry = numbers.external_data.add()
            entry.key, entry.value = key, value
        weights = numbers
    elif kind == "a tensor of a false shape":
        weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[48 * 48, 2**40], raw_data=b"1234")
    elif kind == "NaN among the weights":
        weights = numpy_helper.from_array(np.full((48 * 48, 3), np.nan, np.float32), "w")
    elif kind == "a text for the classes":
        metadata |= {"classes": "abc"}
    elif kind == "a face of 10**9 pixels":
        metadata |= {"side": 10**9}
    elif kind == "other classes than it has":
        metadata |= {"classes": list("abcdefg")}
    nodes = [
        helper.make_node("Flatten", [FACES], ["flat"]),
        helper.make_node("Cast", ["flat"], ["seen"], to=TensorProto.FLOAT),
        *MEMORY_HUNGRY.get(kind, [helper.make_node("Identity", ["seen"], ["values"])]),
        helper.make_node("MatMul", ["values", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [PROBABILITIES]),
    ]
    faces = helper.make_tensor_value_info(FACES, TensorProto.UINT8, ["B", 48, 48])
    answer = helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [faces], [answer], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    text = DEEP if kind == "metadata nested deep" else json.dumps(metadata)
    helper.set_model_props(model, {METADATA: text})
    path.write_bytes(model.SerializeToString()[: 3000 if kind == "cut short" else None])


EXTERNAL = {
    "tensors at /": "/etc/passwd",
    "tensors in a parent folder": "../../secret",
    "tensors in the same folder": "secret",
}
ONNX = (
    *EXTERNAL, "a tensor of a false shape", "NaN among the weights", "metadata nested deep", "a text for the classes",
    "a face of 10**9 pixels", "other classes than it has", "cut short",
)  # fmt: skip


def greedy(*nodes: NodeProto) -> list[NodeProto]:
    """Add to the faces the mean of the large tensor "much" that the last node makes."""
    mean = helper.make_node("ReduceMean", ["much"], ["mean"], keepdims=0)
    return [*nodes, mean, helper.make_node("Add", ["seen", "mean"], ["values"])]


def constant(name: str, *values: int) -> NodeProto:
    return helper.make_node("Constant", [], [name], value_ints=values)


MEMORY_HUNGRY = {
    "4 GB of one value": greedy(constant("n", 10**9), helper.make_node("ConstantOfShape", ["n"], ["much"])),
    "400 MB, three times": greedy(
        constant("n", 10**8),
        helper.make_node("ConstantOfShape", ["n"], ["some"]),
        helper.make_node("Concat", ["some", "some"], ["much"], axis=0),
    ),
    "a face 10**6 times": greedy(constant("n", 10**6, 1, 1), helper.make_node("Expand", ["seen", "n"], ["much"])),
    "92 MB a face": [
        *(constant("one", 1), constant("n", 1, 10**4, 1)),
        helper.make_node("Unsqueeze", ["seen", "one"], ["alone"]),
        helper.make_node("Expand", ["alone", "n"], ["much"]),
        helper.make_node("ReduceMean", ["much", "one"], ["values"], keepdims=0),
    ],
}
"""Graphs that allocate much memory; all but the last exceed the limit for a face."""


EVIL = f"_target_: os.system, class: os.system, command: touch {CANARY}"
YAML = {
    "a Python object": f"model: !!python/object/apply:os.system ['touch {CANARY}']\n",
    "nested deep": f"model: {DEEP}\n",
    "settings of Hydra": f"hydra: {{callbacks: {{x: {{{EVIL}}}}}}}\n",
    "a log handler of any class": f"hydra: {{job_logging: {{handlers: {{x: {{{EVIL}}}}}}}}}\n",
    "too long": "a: " + "b" * 5_000_000,
    "a list": "- seed\n",
    "not YAML": "seed: [",
}


def npz(kind: str) -> bytes:
    """Return a malicious predictions.npz."""
    file, header = io.BytesIO(), io.BytesIO()
    if kind == "pickled":
        np.savez(file, rows=np.array([_Runs()], object))
        return file.getvalue()
    header_of_array = {"descr": "|u1", "fortran_order": False, "shape": (HUGE // 2,)}
    np.lib.format.write_array_header_1_0(header, header_of_array)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("rows.npy", "w", force_zip64=True) as packed:
            packed.write(header.getvalue())
            for _ in range(HUGE // 2 // 10**7 if kind == "a bomb" else 1):
                packed.write(bytes(10**7))
    return file.getvalue()


NPZ = ("pickled", "a bomb", "a header of a false size")


class _Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {CANARY}",)
