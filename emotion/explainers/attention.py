"""A network's own attention, independent of its prediction: spatial attention of CNNs, self-attention of transformers.

Woo et al. 2018, section 3.2, https://arxiv.org/abs/1807.06521; attention rollout: Abnar and Zuidema 2020,
https://arxiv.org/abs/2005.00928.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from emotion.classifier import EmotionClassifier
from emotion.errors import UserError
from emotion.explainers.layers import num_prefix_tokens
from emotion.models.blocks import SpatialAttention

UNSUPPORTED = (
    "explainer=attention: {} has no spatial attention; expected a network with spatial attention (v4_attention, "
    "attention_cnn, resnet_cbam) or a transformer with attention over all patches. Choose another explainer."
)


class Attention:
    """Maps in [0, 1]: the mean of the network's spatial attention maps, or the rollout of its self-attention.

    They show what the network lets through, not what supports a class: the map is the same for every class.

    Args:
        layer: Name of one spatial attention layer; None for all of them.
    """

    signed = False

    def __init__(self, layer: str | None = None) -> None:
        self.layer = layer

    def __call__(self, classifier: EmotionClassifier, faces: Tensor, targets: Tensor) -> Tensor:
        """Return maps (B, S, S) for faces (B, C, S, S); they do not depend on `targets` (B,)."""
        net = classifier.net
        spatial = {name: module for name, module in net.named_modules() if isinstance(module, SpatialAttention)}
        if self.layer is not None and self.layer not in spatial:
            expected = ", ".join(spatial) or "no layer, since the network has no spatial attention"
            raise UserError(f"layer={self.layer} is not a spatial attention layer; expected {expected}.")
        self_attention = [module for module in net.modules() if _is_self_attention(module)]
        with torch.no_grad():
            if spatial:
                return _spatial_attention(
                    classifier, faces, [spatial[self.layer]] if self.layer else [*spatial.values()]
                )
            if self_attention:
                return _rollout(classifier, faces, self_attention)
        raise UserError(UNSUPPORTED.format(classifier.network_name))


def _spatial_attention(classifier: EmotionClassifier, faces: Tensor, layers: list[SpatialAttention]) -> Tensor:
    def attention(layer: SpatialAttention, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return interpolate(layer.attention(inputs[0]).float(), faces.shape[-2:], mode="bilinear")[:, 0]

    return torch.stack([_min_max(maps) for maps in _collect(classifier, faces, layers, attention)]).mean(0)


def _is_self_attention(module: nn.Module) -> bool:
    """Return whether it is timm's attention over all tokens; windowed attention (Swin) has another class name."""
    return type(module).__name__ in ("Attention", "EvaAttention") and hasattr(module, "attn_drop")


def _rollout(classifier: EmotionClassifier, faces: Tensor, layers: list[Any]) -> Tensor:
    """Trace the mean of the last patches back to the input patches through attention and residual connections."""
    fused = [layer.fused_attn for layer in layers]
    for layer in layers:
        layer.fused_attn = False  # a fused kernel does not expose its weights
    try:
        dropouts = [layer.attn_drop for layer in layers]  # their input is the attention weights
        weights = _collect(classifier, faces, dropouts, lambda layer, inputs, output: inputs[0].float().mean(1))
    finally:
        for layer, value in zip(layers, fused, strict=True):
            layer.fused_attn = value
    tokens = weights[0].shape[-1]
    patches = tokens - num_prefix_tokens(classifier.net)
    side = math.isqrt(patches)
    if side**2 != patches or any(attention.shape != (len(faces), tokens, tokens) for attention in weights):
        raise UserError(UNSUPPORTED.format(classifier.net.name))
    identity = torch.eye(tokens, device=faces.device)
    flow = identity.expand(len(faces), -1, -1)
    for attention in weights:
        residual = attention + identity
        flow = (residual / residual.sum(-1, keepdim=True)) @ flow
    maps = flow[:, -patches:, -patches:].mean(1).view(-1, 1, side, side)
    return _min_max(interpolate(maps, faces.shape[-2:], mode="bilinear")[:, 0])


def _collect(
    classifier: EmotionClassifier, faces: Tensor, layers: list[Any], function: Callable[[Any, Any, Any], Tensor]
) -> list[Tensor]:
    """Return `function(layer, inputs, output)` of each layer in one forward pass."""
    results: list[Tensor] = []

    def collect(layer: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ANN401
        results.append(function(layer, inputs, output))

    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.register_forward_hook(collect))
        classifier(faces)
    return results


def _min_max(maps: Tensor) -> Tensor:
    """Scale each map to [0, 1]; a map that is flat up to rounding becomes 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(high - low > 1e-5 * high.abs(), (maps - low) / (high - low), 0.0)
