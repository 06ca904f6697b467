"""The layers of a network that Grad-CAM can explain."""

import math
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from emotion.errors import UserError, listing
from emotion.models.blocks import FaceNetwork


def find_layer(net: FaceNetwork, face: Tensor, name: str | None = None) -> nn.Module:
    """Return the layer with the dotted name `name`, or the network's own choice.

    A face (1, C, S, S) shows which layers output feature maps.

    Raises:
        UserError: The layer does not exist or outputs no feature maps; the message lists the last layers that do.
    """
    name = name or net.cam_layer()
    names = feature_map_layers(net, face)
    if name not in names:
        raise UserError(
            f"layer={name}: {type(net).__name__} has no such layer with feature maps; expected one of these, the last "
            f"first:{listing(names[::-1])}"
        )
    return net.get_submodule(name)


def feature_map_layers(net: nn.Module, face: Tensor) -> list[str]:
    """Return the names of the layers that output square feature maps or square grids of tokens, in forward order.

    Layers that output windows instead of faces, or attention matrices, are none.
    """
    faces, prefix = face.expand(3, -1, -1, -1), num_prefix_tokens(net)
    outputs: dict[str, Tensor] = {}

    def record(name: str, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and len(output) == len(faces):  # otherwise windows x faces
            outputs[name] = output

    with ExitStack() as hooks, torch.no_grad():
        for name, module in net.named_modules():
            if name:
                hooks.enter_context(module.register_forward_hook(partial(record, name)))
        net(faces)
    return [
        name
        for name, output in outputs.items()
        if to_feature_maps(output, prefix) is not None
        and not _is_attention(output, outputs.get(name.rpartition(".")[0]))
    ]


def _is_attention(output: Tensor, parent: Tensor | None) -> bool:
    """Return whether an output is attention matrices (n, n): the parent outputs n tokens (B, n, c) or (B, h, h, c)."""
    if output.ndim != 4 or parent is None:
        return False
    n, tokens = output.shape[2], parent.shape[1:-1]
    return len(set(tokens)) == 1 and tokens.numel() == n and (parent.ndim == 3 or output.shape[3] == n)


def num_prefix_tokens(net: nn.Module) -> int:
    """Return the number of a transformer's tokens before the patches (class token, registers)."""
    return int(getattr(getattr(net, "backbone", None), "num_prefix_tokens", 0))


def to_feature_maps(output: Tensor, prefix: int) -> Tensor | None:
    """Reshape a layer's output or gradient to feature maps (B, c, h, h); None if it has no spatial layout.

    Some transformers output (B, h, h, c). Tokens (B, n, c) are row-major, after `prefix` tokens without a position or
    without those.
    """
    if output.ndim == 4 and output.shape[2] == output.shape[3] > 1:
        return output
    if output.ndim == 4 and output.shape[1] == output.shape[2] > 1:
        return output.permute(0, 3, 1, 2)
    if output.ndim == 3:
        for patches in (output.shape[1] - prefix, output.shape[1]):
            side = math.isqrt(max(0, patches))
            if side > 1 and side**2 == patches:
                return output[:, -patches:].transpose(1, 2).reshape(output.shape[0], output.shape[2], side, side)
    return None
