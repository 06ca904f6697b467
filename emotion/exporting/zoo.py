"""Write the ONNX files of the package's own weights: python -m emotion.exporting.zoo.

Each reads its weights from the .safetensors file beside it, so that the package contains them only once.
"""

import json
from pathlib import Path
from typing import Any

from emotion.checkpoints.ensemble import load_ensemble
from emotion.checkpoints.locate import ONNX_SUFFIX, zoo
from emotion.exporting.onnx import export_onnx
from emotion.inference.onnx_backend import import_optional
from emotion.io.atomic import write_bytes

MIN_BYTES = 1024  # ONNX needs the values of smaller tensors, such as shapes


def main() -> None:
    """Export every network of emotion/zoo."""
    for weights in zoo().values():
        path = weights.with_suffix(ONNX_SUFFIX)
        parity, _ = export_onnx(load_ensemble(weights), path, cam=True, half=True)
        content = share_weights(path)
        write_bytes(path, content)
        print(f"{path}, {len(content) / 1e6:.2f} MB: {parity}")


def share_weights(path: Path) -> bytes:
    """Return an ONNX file whose tensors refer to equal bytes in the .safetensors file beside it."""
    onnx: Any = import_optional("onnx")
    from onnx.external_data_helper import set_external_data

    weights = path.with_suffix(".safetensors")
    content = weights.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    ranges = [tensor["data_offsets"] for name, tensor in header.items() if name != "__metadata__"]
    places = {content[start + first : start + last]: start + first for first, last in ranges}
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) >= MIN_BYTES and tensor.raw_data in places:
            set_external_data(tensor, weights.name, places[tensor.raw_data], len(tensor.raw_data))
            tensor.ClearField("raw_data")
    return bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
