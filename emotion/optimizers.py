"""Learning rates by part of the network: a head that is new, a backbone that knows much already."""

from typing import Any

from torch import nn


def parameter_groups(net: nn.Module, lr: float, backbone_lr: float | None, layer_decay: float) -> list[dict[str, Any]]:
    """The parameters for an optimiser: `head` at `lr`, the backbone at `backbone_lr`, `lr` where that is None.

    With `layer_decay` below 1 each block of the backbone is a group, its rate that of the block after it times the
    decay, the last one's `backbone_lr`: Clark et al. 2020, section 3, https://arxiv.org/abs/2003.10555. All the same
    for every part: one nameless group.
    """
    if backbone_lr is None and layer_decay == 1:
        return [{"params": list(net.parameters())}]
    depths: dict[str, int] = net.depths()  # type: ignore[operator]
    head = max(depths.values())
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in net.named_parameters():
        depth = depths[name]
        rate = lr if depth == head else (backbone_lr or lr) * layer_decay ** (head - 1 - depth)
        of = "head" if depth == head else "backbone" if layer_decay == 1 else f"block{depth:02d}"
        groups.setdefault(of, {"params": [], "lr": rate, "name": of})["params"].append(parameter)
    return [groups[name] for name in sorted(groups)]  # backbone, head; block00, block01, ..., head
