"""Any backbone of timm under a classifier of our own: https://github.com/huggingface/pytorch-image-models.

The document's four, at 224x224 RGB: resnet50 with a hidden layer in its head, convnext_base, tf_efficientnet_b3 (noisy
student) and vit_base_patch16_224.
"""

import difflib
import math
from typing import Any

import timm
import torch
from timm.models import group_parameters
from torch import Tensor, nn

from emotion.models.blocks import FaceNetwork


class TimmBackbone(FaceNetwork):
    """Faces (B, in_channels, S, S) to logits (B, num_classes), of the sizes S that the backbone takes.

    With `hidden` the head is Linear, ReLU, LayerNorm, dropout, Linear; without, dropout and Linear. Weights are drawn;
    trained ones are loaded into it by `emotion.training.pretrained`, never by its
    constructor, so that a checkpoint needs no other file.

    Raises:
        ValueError: timm has no such backbone, or it cannot take the input.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        input_size: int = 224,
        backbone: str = "resnet50",
        hidden: int | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.name = backbone
        made = create(backbone, in_channels, input_size, drop_path)
        self.features = TimmFeatures(made)
        tokens, width = _tokens_and_width(backbone, self.features, in_channels, input_size)
        last = nn.Linear(hidden or width, num_classes)
        before = [nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.LayerNorm(hidden)] if hidden else []
        self.head = TimmHead(made, nn.Sequential(*before, nn.Dropout(dropout), last), tokens)
        for norm in (module for module in self.modules() if isinstance(module, nn.LayerNorm)):
            norm.register_forward_pre_hook(_in_float32)

    @property
    def backbone(self) -> Any:  # noqa: ANN401
        """The model of timm, whose parameters are named as in its own checkpoints."""
        return self.features.backbone

    def cam_layer(self) -> str:
        """The last maps, a transformer's too: its patches are averaged, so that each has its own gradient."""
        return "features"

    def depths(self) -> dict[str, int]:
        """By timm's own groups: the stem, each block, what follows them; then the head."""
        matcher = self.backbone.group_matcher(coarse=False)
        groups: dict[str, int] = group_parameters(self.backbone, matcher, reverse=True)
        head = max(groups.values()) + 1
        inner = {f"features.backbone.{name}": depth for name, depth in groups.items()}
        return {name: inner.get(name, head) for name, _ in self.named_parameters()}


class TimmFeatures(nn.Module):
    """A backbone up to its last maps."""

    def __init__(self, backbone: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.backbone = backbone

    def forward(self, faces: Tensor) -> Tensor:
        """(B, C, S, S) to maps (B, c, h, w); a transformer's tokens laid out as the patches lie, its class token not.

        Raises:
            ValueError: the backbone makes neither maps nor tokens of a square.
        """
        maps: Tensor = self.backbone.forward_features(faces)
        if not isinstance(maps, Tensor) or maps.ndim not in (3, 4):
            raise ValueError("its features are neither maps nor tokens")
        if maps.ndim == 3:
            tokens = maps[:, getattr(self.backbone, "num_prefix_tokens", 0) :]
            side = math.isqrt(tokens.shape[1])
            if side * side != tokens.shape[1]:
                raise ValueError(f"its {tokens.shape[1]} tokens are no square")
            return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], side, side)
        return maps.permute(0, 3, 1, 2) if _channels_last(self.backbone) else maps


class TimmHead(nn.Module):
    """Pools as the backbone does, with what trained layers it has there; a transformer's patches are averaged alone.

    Those layers stay among the backbone's parameters, with which they were trained.
    """

    def __init__(self, backbone: Any, classifier: nn.Sequential, tokens: bool) -> None:  # noqa: ANN401
        super().__init__()
        self.classifier, self.tokens = classifier, tokens
        self.pool = [backbone]  # in a list: not a second owner of its parameters

    def forward(self, maps: Tensor) -> Tensor:
        """(B, c, h, w) to logits (B, num_classes)."""
        if self.tokens:
            pooled = maps.mean((2, 3))
        else:
            (backbone,) = self.pool
            maps = maps.permute(0, 2, 3, 1) if _channels_last(backbone) else maps
            pooled = backbone.forward_head(maps, pre_logits=True)
        logits: Tensor = self.classifier(pooled)
        return logits


def create(backbone: str, in_channels: int, input_size: int, drop_path: float = 0.0, pretrained: bool = False) -> Any:  # noqa: ANN401
    """Timm's model without its classifier; with `pretrained`, weights from the Hugging Face Hub or its cache.

    Raises:
        ValueError: timm has no such backbone, or one that cannot be used here.
    """
    if not timm.is_model(backbone):
        near = difflib.get_close_matches(backbone, timm.list_models(), 5, 0.5)
        raise ValueError(
            f"timm has no backbone {backbone!r}; expected one of timm.list_models(), such as "
            f"{', '.join(near or ['resnet50', 'convnext_base'])}."
        )
    known = timm.get_pretrained_cfg(backbone)
    settings: dict[str, Any] = {"in_chans": in_channels, "num_classes": 0}
    if known and known.fixed_input_size:
        settings["img_size"] = input_size
    if drop_path:
        settings["drop_path_rate"] = drop_path
    try:
        made = timm.create_model(backbone, pretrained=pretrained, **settings)
    except AssertionError as error:
        raise ValueError(f"{backbone} cannot take {input_size}x{input_size} pixels: {error}.") from error
    if not hasattr(made, "group_matcher"):
        raise ValueError(f"{backbone} does not tell its blocks apart, which stages need; choose another backbone.")
    return made


def _in_float32(norm: nn.Module, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Under autocast to bfloat16 an accelerator normalises layers in float32 by itself, and a processor does not.

    Its gradients of scale and shift, added up in bfloat16, were 4 % off over a thousand places and 25 % over 50,000.
    """
    return tuple(one.float() if one.dtype is torch.bfloat16 else one for one in maps)


def _channels_last(backbone: nn.Module) -> bool:
    return getattr(backbone, "output_fmt", "NCHW") == "NHWC"


def _tokens_and_width(name: str, features: TimmFeatures, in_channels: int, input_size: int) -> tuple[bool, int]:
    """Whether the backbone makes tokens, and how many numbers its pooled maps have, found by way of a black face."""
    face = torch.zeros(1, in_channels, input_size, input_size)
    try:
        with torch.no_grad():
            features.eval()
            maps = features(face)
            tokens = features.backbone.forward_features(face).ndim == 3
            width = TimmHead(features.backbone, nn.Sequential(), tokens)(maps).shape[1]
            features.train()
        return tokens, int(width)
    except (AssertionError, AttributeError, IndexError, RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{name} cannot take {input_size}x{input_size} pixels of {in_channels}: {reason}. "
            f"Choose another input or backbone."
        ) from error
