"""How a network's logits change with its maps, as a plain graph: an exporter cannot go through what differentiates."""

import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from emotion.classifier import EmotionClassifier


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
