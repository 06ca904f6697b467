"""Build hook of the wheel: its ONNX files read their weights from the .safetensors files beside them."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MIN_BYTES = 1024  # ONNX needs the values of smaller tensors, such as shapes


class SharedWeights(BuildHookInterface):
    """Put smaller files in the place of `emotion/zoo/*.onnx`; an editable installation has the files themselves."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the files into a temporary folder."""
        self.folder = TemporaryDirectory()
        if version == "editable":
            return
        for path in sorted(Path(self.root, "emotion", "zoo").glob("*.onnx")):
            shared = Path(self.folder.name, path.name)
            shared.write_bytes(share_weights(path))
            build_data["force_include"][str(shared)] = f"emotion/zoo/{path.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder."""
        self.folder.cleanup()


def share_weights(path: Path) -> bytes:
    """Return an ONNX file whose tensors refer to equal bytes in the .safetensors file beside it."""
    import onnx
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
