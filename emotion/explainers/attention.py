"""Where a network's own attention lies, whatever it answers: spatial attention of CNNs, self-attention of transformers.

Woo et al. 2018, section 3.2, https://arxiv.org/abs/1807.06521; attention rollout: Abnar and Zuidema 2020,
https://arxiv.org/abs/2005.00928.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from emotion.classifier import EmotionClassifier
from emotion.errors import UserError
from emotion.explainers.layers import prefix_tokens
from emotion.models.blocks import SpatialAttention

NONE = (
    "method=attention: {} has no attention over places; expected a network with spatial attention (v4_attention, "
    "attention_cnn, resnet_cbam) or a transformer with attention over all patches. Choose another method."
)


class Attention:
    """Maps from 0 to 1 of each face: the mean of its spatial attentions, or the rollout of its self-attentions.

    It shows what the network lets through, not what speaks for a class: the same map explains every answer.

    Args:
        layer: the name of one spatial attention; None for all of them.
    """

    signed = False

    def __init__(self, layer: str | None = None) -> None:
        self.layer = layer

    def __call__(self, classifier: EmotionClassifier, faces: Tensor, targets: Tensor) -> Tensor:
        """Faces (B, C, S, S) to maps (B, S, S); `targets` (B,) change nothing."""
        spatial = {name: m for name, m in classifier.net.named_modules() if isinstance(m, SpatialAttention)}
        own = {name: m for name, m in classifier.net.named_modules() if _is_self_attention(m)}
        if self.layer is not None and self.layer not in spatial:
            expected = ", ".join(spatial) or "no layer, since it has no spatial attention"
            raise UserError(f"layer={self.layer} is no spatial attention of this network; expected {expected}.")
        with torch.no_grad():
            if spatial:
                return self._spatial(classifier, faces, [spatial[self.layer]] if self.layer else [*spatial.values()])
            if own:
                return _rollout(classifier, faces, [*own.values()])
        raise UserError(NONE.format(getattr(classifier.net, "name", type(classifier.net).__name__)))

    def _spatial(self, classifier: EmotionClassifier, faces: Tensor, layers: list[SpatialAttention]) -> Tensor:
        def see(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            assert isinstance(layer, SpatialAttention)
            where = layer.attention(inputs[0]).float()
            return interpolate(where, faces.shape[-2:], mode="bilinear")[:, 0]

        seen = _seen(classifier, faces, layers, see)
        return torch.stack([_from_0_to_1(maps) for maps in seen]).mean(0)


def _is_self_attention(module: nn.Module) -> bool:
    """One of timm's over all tokens; those of Swin's windows, which have no prefix to skip, are of another class."""
    return type(module).__name__ in ("Attention", "EvaAttention") and hasattr(module, "attn_drop")


def _rollout(classifier: EmotionClassifier, faces: Tensor, layers: list[Any]) -> Tensor:
    """From which patches the mean of the last patches comes, attention by attention with the skips beside them."""
    fused = [layer.fused_attn for layer in layers]
    for layer in layers:
        layer.fused_attn = False  # a fused one never has its weights in one place
    try:
        drops = [layer.attn_drop for layer in layers]
        weights = _seen(classifier, faces, drops, lambda drop, inputs, output: inputs[0].float().mean(1))
    finally:
        for layer, was in zip(layers, fused, strict=True):
            layer.fused_attn = was
    tokens = weights[0].shape[-1]
    patches = tokens - prefix_tokens(classifier.net)
    side = math.isqrt(patches)
    if side**2 != patches or any(one.shape != (len(faces), tokens, tokens) for one in weights):
        raise UserError(NONE.format(classifier.net.name))
    flow = torch.eye(tokens, device=faces.device).expand(len(faces), -1, -1)
    for attention in weights:
        mixed = attention + torch.eye(tokens, device=faces.device)
        flow = (mixed / mixed.sum(-1, keepdim=True)) @ flow
    maps = flow[:, -patches:, -patches:].mean(1).view(-1, 1, side, side)
    return _from_0_to_1(interpolate(maps, faces.shape[-2:], mode="bilinear")[:, 0])


def _seen(
    classifier: EmotionClassifier, faces: Tensor, layers: list[Any], see: Callable[[Any, Any, Any], Tensor]
) -> list[Tensor]:
    """What `see` makes of each layer's input and output while the classifier looks at the faces."""
    found: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, output: found.append(see(layer, inputs, output)))
        for layer in layers
    ]
    try:
        classifier(faces)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _from_0_to_1(maps: Tensor) -> Tensor:
    """Each map's own range; one that is flat but for rounding becomes 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(high - low > 1e-5 * high.abs(), (maps - low) / (high - low), 0.0)
