"""Learning rates by part of the network: a new head, a pretrained backbone."""

from typing import Any

from torch import nn

from emotion.errors import UserError


def parameter_groups(net: nn.Module, lr: float, backbone_lr: float | None, layer_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups for an optimizer: `head` at `lr`, the backbone at `backbone_lr` (None: `lr`).

    With `layer_decay` below 1 each block of the backbone is a group: the last one has `backbone_lr`, each earlier one
    the rate of the next times the decay (Clark et al. 2020, section 3, https://arxiv.org/abs/2003.10555). With one rate
    for all parameters there is one unnamed group.

    Raises:
        UserError: A rate is negative, or the decay is not above 0 and at most 1.
    """
    are_numbers = isinstance(layer_decay, int | float) and isinstance(backbone_lr, int | float | None)
    if not are_numbers or not 0 < layer_decay <= 1 or (backbone_lr or 0) < 0:
        raise UserError(
            f"backbone_lr={backbone_lr}, layer_decay={layer_decay}: expected a rate of at least 0 or null, and a "
            f"factor above 0 and at most 1."
        )
    if backbone_lr is None and layer_decay == 1:
        return [{"params": list(net.parameters())}]
    depths: dict[str, int] = net.depths()  # type: ignore[operator]
    head = max(depths.values())
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in net.named_parameters():
        depth = depths[name]
        rate = lr if depth == head else (lr if backbone_lr is None else backbone_lr) * layer_decay ** (head - 1 - depth)
        group = "head" if depth == head else "backbone" if layer_decay == 1 else f"block{depth:02d}"
        groups.setdefault(group, {"params": [], "lr": rate, "name": group})["params"].append(parameter)
    return [groups[name] for name in sorted(groups)]  # backbone, head; block00, block01, ..., head
