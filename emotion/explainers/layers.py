"""The layers of a network whose maps can be explained, by name."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from emotion.errors import UserError
from emotion.models.blocks import FaceNetwork


def layer_of(net: FaceNetwork, face: Tensor, name: str | None = None) -> nn.Module:
    """The layer `name`, or where nothing is said the network's own choice.

    Raises:
        UserError: it has no such layer, or the layer makes no maps of `face` (1, C, S, S); lists those that do.
    """
    name = name or net.cam_layer()
    right = choices(net, face)
    if name not in right:
        raise UserError(
            f"layer={name}: {type(net).__name__} has no layer of that name that makes maps; "
            f"expected one of {', '.join(right)}."
        )
    return net.get_submodule(name)


def choices(net: nn.Module, face: Tensor) -> list[str]:
    """The names of the layers whose output is square maps or tokens of a square, in the order in which they run."""
    found: dict[str, None] = {}

    def note(name: str, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and as_maps(output, prefix_tokens(net)) is not None:
            found[name] = None

    hooks = [module.register_forward_hook(partial(note, name)) for name, module in net.named_modules() if name]
    try:
        with torch.no_grad():
            net(face)
    finally:
        for hook in hooks:
            hook.remove()
    return list(found)


def prefix_tokens(net: nn.Module) -> int:
    """How many tokens a transformer puts before those of its patches: class, registers."""
    return int(getattr(getattr(net, "backbone", None), "num_prefix_tokens", 0))


def as_maps(output: Tensor, prefix: int) -> Callable[[Tensor], Tensor] | None:
    """What makes maps (B, c, h, w) of a layer's output and of its gradient; None for one that has no places.

    Tokens (B, n, c) lie row by row, after `prefix` ones that have no place, or before those are added.
    """
    if output.ndim == 4 and output.shape[2] == output.shape[3] > 1:
        return _same
    if output.ndim == 3:
        for patches in (output.shape[1] - prefix, output.shape[1]):
            side = math.isqrt(max(0, patches))
            if side > 1 and side**2 == patches:
                return partial(_laid_out, side)
    return None


def _same(maps: Tensor) -> Tensor:
    return maps


def _laid_out(side: int, tokens: Tensor) -> Tensor:
    return tokens[:, -(side**2) :].transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], side, side)
