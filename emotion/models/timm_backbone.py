"""A timm backbone with its own classifier head: https://github.com/huggingface/pytorch-image-models.

Published with four backbones at 224x224 RGB: resnet50 (hidden layer in the head), convnext_base, tf_efficientnet_b3
(noisy student) and vit_base_patch16_224.
"""

import difflib
import math
from typing import Any

import timm
import torch
from timm.models import group_parameters
from torch import Tensor, nn

from emotion.errors import first_line
from emotion.models.blocks import FaceNetwork


class TimmBackbone(FaceNetwork):
    """Faces (B, in_channels, S, S) to logits (B, num_classes), for the sizes S that the backbone supports.

    The head is dropout and Linear; with `hidden`: Linear, ReLU, LayerNorm, dropout, Linear. The constructor initializes
    the weights at random, so that a checkpoint needs no other file; `emotion.training.pretrained` loads trained ones.

    Raises:
        ValueError: timm has no such backbone, or the backbone does not support the input.
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
        timm_model = create(backbone, in_channels, input_size, drop_path)
        self.features = TimmFeatures(timm_model)
        is_token_model, width = _probe(backbone, self.features, in_channels, input_size)
        last = nn.Linear(hidden or width, num_classes)
        first = [nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.LayerNorm(hidden)] if hidden else []
        self.head = TimmHead(timm_model, nn.Sequential(*first, nn.Dropout(dropout), last), is_token_model)
        for norm in (module for module in self.modules() if isinstance(module, nn.LayerNorm)):
            norm.register_forward_pre_hook(_cast_to_float32)

    @property
    def backbone(self) -> Any:  # noqa: ANN401
        """The timm model, whose parameter names match timm's checkpoints."""
        return self.features.backbone

    def cam_layer(self) -> str:
        """Return the last maps, for transformers as well: the head averages their patches, so each has a gradient."""
        return "features"

    def depths(self) -> dict[str, int]:
        """Return timm's own parameter groups: the stem, each block, the layers after them; then the head."""
        matcher = self.backbone.group_matcher(coarse=False)
        groups: dict[str, int] = group_parameters(self.backbone, matcher, reverse=True)
        head = max(groups.values()) + 1
        depths = {f"features.backbone.{name}": depth for name, depth in groups.items()}
        return {name: depths.get(name, head) for name, _ in self.named_parameters()}


class TimmFeatures(nn.Module):
    """A backbone up to its last maps."""

    def __init__(self, backbone: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.backbone = backbone

    def forward(self, faces: Tensor) -> Tensor:
        """Map (B, C, S, S) to (B, c, h, w); patch tokens are arranged as a grid, prefix tokens are dropped.

        Raises:
            ValueError: The backbone outputs neither maps nor a square grid of tokens.
        """
        maps: Tensor = self.backbone.forward_features(faces)
        if not isinstance(maps, Tensor) or maps.ndim not in (3, 4):
            raise ValueError("its features are neither maps nor tokens")
        if maps.ndim == 3:
            tokens = maps[:, getattr(self.backbone, "num_prefix_tokens", 0) :]
            side = math.isqrt(tokens.shape[1])
            if side * side != tokens.shape[1]:
                raise ValueError(f"its {tokens.shape[1]} tokens are not a square grid")
            return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], side, side)
        return maps.permute(0, 3, 1, 2) if _is_nhwc(self.backbone) else maps


class TimmHead(nn.Module):
    """Pool with the backbone's own head layers, or average the patches of a transformer; then classify.

    The backbone's head layers stay among its parameters, because they are pretrained with it.
    """

    def __init__(self, backbone: Any, classifier: nn.Sequential, tokens: bool) -> None:  # noqa: ANN401
        super().__init__()
        self.classifier, self.tokens = classifier, tokens
        self.pool = [backbone]  # a list, so that its parameters are not registered twice

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, c, h, w) to logits (B, num_classes)."""
        if self.tokens:
            pooled = maps.mean((2, 3))
        else:
            (backbone,) = self.pool
            maps = maps.permute(0, 2, 3, 1) if _is_nhwc(backbone) else maps
            pooled = backbone.forward_head(maps, pre_logits=True)
        logits: Tensor = self.classifier(pooled)
        return logits


def create(backbone: str, in_channels: int, input_size: int, drop_path: float = 0.0, pretrained: bool = False) -> Any:  # noqa: ANN401
    """Create a timm model without its classifier; `pretrained` weights come from the Hugging Face Hub or its cache.

    Raises:
        ValueError: timm has no such backbone, or the backbone cannot be used here.
    """
    if not timm.is_model(backbone):
        similar = difflib.get_close_matches(backbone, timm.list_models(), 5, 0.5)
        raise ValueError(
            f"timm has no backbone {backbone!r}; expected one of timm.list_models(), such as "
            f"{', '.join(similar or ['resnet50', 'convnext_base'])}."
        )
    published = timm.get_pretrained_cfg(backbone)
    settings: dict[str, Any] = {"in_chans": in_channels, "num_classes": 0}
    if published and published.fixed_input_size:
        settings["img_size"] = input_size
    if drop_path:
        settings["drop_path_rate"] = drop_path
    try:
        model = timm.create_model(backbone, pretrained=pretrained, **settings)
    except AssertionError as error:
        raise ValueError(f"{backbone} does not support {input_size}x{input_size} pixels: {error}.") from error
    if not hasattr(model, "group_matcher"):
        raise ValueError(f"{backbone} does not define parameter groups, which stages need. Choose another backbone.")
    return model


def _cast_to_float32(norm: nn.Module, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Compute layer normalization in float32, as autocast to bfloat16 does on a GPU but not on a CPU.

    Gradients of scale and shift, accumulated in bfloat16, were 4 % off over 1,000 positions and 25 % over 50,000.
    """
    return tuple(value.float() if value.dtype is torch.bfloat16 else value for value in maps)


def _is_nhwc(backbone: nn.Module) -> bool:
    return getattr(backbone, "output_fmt", "NCHW") == "NHWC"


def _probe(name: str, features: TimmFeatures, in_channels: int, input_size: int) -> tuple[bool, int]:
    """Return whether the backbone outputs tokens, and the width of its pooled features, from one black face."""
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
        raise ValueError(
            f"{name} does not support {input_size}x{input_size} pixels of {in_channels} channels: {first_line(error)}. "
            f"Choose another input or backbone."
        ) from error
