"""timm backbones: small ones in depth; the named ones at full size in `make test-all`."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from omegaconf import OmegaConf
from pytorch_grad_cam import GradCAM
from torch import Tensor, nn

from emotion.callbacks.staged_unfreezing import freeze
from emotion.config.compose import compose
from emotion.config.instantiate import instantiate
from emotion.errors import UserError
from emotion.models.timm_backbone import TimmBackbone
from tests.conftest import BACKBONES, representative

FAMILIES = {  # maps, NHWC maps, tokens with and without a class token, pretrained layers after the pooling
    "test_resnet": 32,
    "test_mambaout": 64,
    "test_vit": 48,
    "test_vit_relpos": 48,
    "mobilenetv3_small_050": 64,
    "test_convnext": 64,
}
LARGE = {"swin_tiny_patch4_window7_224": 56, "mixer_s16_224": 224, "vit_tiny_patch16_224": 48}
SIZES = FAMILIES | LARGE
families = pytest.mark.parametrize("family", representative(SIZES, *FAMILIES))
named_backbones = pytest.mark.parametrize("model", representative([TINY := "tiny", *BACKBONES], TINY))

large = pytest.mark.exhaustive
WITHOUT_CLASSIFIER = {  # published counts minus a 1,000-class classifier
    "resnet18": 11_689_512 - 1000 * 513,
    "resnet50": 25_557_032 - 1000 * 2049,
    "convnext_base": 88_591_464 - 1000 * 1025,
    "tf_efficientnet_b3_ns": 12_233_232 - 1000 * 1537,
    "vit_base_patch16_224": 86_567_656 - 1000 * 769,
    "efficientnet_lite0": 4_652_008 - 1000 * 1281,
}
HEAD = {
    "resnet50": 512 * 2049 + 2 * 512 + 7 * 513,
    "resnet18": 7 * 513,
    "convnext_base": 7 * 1025,
    "tf_efficientnet_b3_ns": 7 * 1537,
    "vit_base_patch16_224": 7 * 769,
    "efficientnet_lite0": 7 * 1281,
}


def build(model: str) -> tuple[TimmBackbone, Tensor]:
    """A model of conf/model, or a small ResNet in its recipe, with random weights, and two faces."""
    smaller = ["model=resnet18", "model.backbone=test_resnet", "input.size=64"] if model == TINY else [f"model={model}"]
    cfg = compose("train", *smaller, "run_dir=x")
    config: dict[str, Any] = OmegaConf.to_container(cfg.model, resolve=True)  # type: ignore[assignment]
    config.pop("weights")
    torch.manual_seed(0)
    net: TimmBackbone = instantiate(config, num_classes=7, in_channels=cfg.input.channels, input_size=cfg.input.size)
    return net, torch.randn(2, cfg.input.channels, cfg.input.size, cfg.input.size)


@pytest.mark.parametrize("model", BACKBONES)
def test_a_named_backbone_has_its_published_parameter_count(model: str) -> None:
    with torch.device("meta"):
        net, _ = build(model)
    backbone = sum(parameter.numel() for parameter in net.backbone.parameters())
    assert backbone == WITHOUT_CLASSIFIER[model]
    assert sum(parameter.numel() for parameter in net.parameters()) == backbone + HEAD[model]
    if model == "resnet50":
        layers = [type(layer) for layer in net.head.classifier]
        assert layers == [nn.Linear, nn.ReLU, nn.LayerNorm, nn.Dropout, nn.Linear]


@named_backbones
def test_a_named_backbone_trains_frozen_and_unfrozen(model: str) -> None:
    net, faces = build(model)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    for train in ("head", "all"):
        freeze(net, train)
        before = {name: value.clone() for name, value in net.state_dict().items()}
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(faces), torch.tensor([0, 1])).backward()
        assert {name for name, p in net.named_parameters() if p.grad is not None} == {
            name for name, p in net.named_parameters() if train == "all" or name.startswith("head.")
        }
        optimizer.step()
        changed = {name for name, value in net.state_dict().items() if not value.equal(before[name])}
        assert changed
        assert train == "all" or all(name.startswith("head.") for name in changed)


@named_backbones
def test_a_named_backbone_supports_grad_cam(model: str) -> None:
    net, faces = build(model)
    with GradCAM(net.eval(), [net.features]) as cam:
        maps = cam(faces, None)
    assert maps.shape == (2, *faces.shape[2:])
    assert np.isfinite(maps).all()
    assert maps.max() > 0.9


@families
def test_features_are_maps_and_forward_is_their_head(family: str) -> None:
    net = TimmBackbone(7, 1, SIZES[family], family).eval()
    faces = torch.randn(2, 1, SIZES[family], SIZES[family])
    with torch.inference_mode():
        maps = net.features(faces)
        assert maps.ndim == 4
        assert maps.shape[2] == maps.shape[3]
        assert net.head(maps).equal(net(faces))
        assert net(faces).shape == (2, 7)


@pytest.mark.parametrize("family", ["test_resnet", "mobilenetv3_small_050", "test_convnext", "test_mambaout"])
def test_logits_are_those_of_the_timm_model(family: str) -> None:
    """All but transformers with a class token: here their patches are averaged."""
    size = SIZES[family]
    net = TimmBackbone(7, 3, size, family).eval()
    reference = timm.create_model(family, num_classes=7).eval()
    reference.load_state_dict(net.backbone.state_dict(), strict=False)
    reference.get_classifier().load_state_dict(net.head.classifier[-1].state_dict())
    faces = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        torch.testing.assert_close(net(faces), reference(faces))


@families
def test_every_parameter_has_a_depth_and_only_the_head_has_the_largest(family: str) -> None:
    net = TimmBackbone(7, 3, SIZES[family], family, hidden=8)
    depths = net.depths()
    assert list(depths) == [name for name, _ in net.named_parameters()]
    assert sorted(set(depths.values())) == list(range(max(depths.values()) + 1))
    assert {name for name, depth in depths.items() if depth == max(depths.values())} == {
        name for name in depths if name.startswith("head.")
    }


def test_no_parameter_is_in_the_state_dict_twice() -> None:
    state = TimmBackbone(7, 3, 64, "mobilenetv3_small_050").state_dict()
    assert sum("conv_head.weight" in name for name in state) == 1
    pointers = [value.data_ptr() for value in state.values() if value.numel() > 1]
    assert len(set(pointers)) == len(pointers)


def test_compiled_and_bfloat16_logits_agree_with_float32() -> None:
    net, faces = TimmBackbone(7, 3, 64, "test_resnet").eval(), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = net(faces)
        torch.testing.assert_close(torch.compile(net, backend="aot_eager")(faces), expected, atol=1e-4, rtol=1e-4)
        net.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            half = net(faces.contiguous(memory_format=torch.channels_last)).float()
    assert (half - expected).norm() <= 0.05 * expected.norm()


@pytest.mark.parametrize(
    ("backbone", "size", "message"),
    [
        ("resnt18", 64, r"timm has no backbone 'resnt18'; expected .* such as resnet18"),
        pytest.param(
            "vgg11", 16, r"vgg11 does not support 16x16 pixels of 3 channels: .*Choose another input", marks=large
        ),
        ("maxvit_tiny_tf_224", 100, r"maxvit_tiny_tf_224 does not support 100x100 pixels of 3 channels: .*divisible"),
        ("pit_ti_224", 224, "pit_ti_224 does not define parameter groups"),
        pytest.param("volo_d1_224", 32, "tokens are not a square grid", marks=large),
        pytest.param("nest_tiny", 50, "nest_tiny does not support 50x50 pixels", marks=large),
        ("coat_tiny", 224, "its features are neither maps nor tokens"),
    ],
)
def test_an_unusable_backbone_is_refused_with_the_reason(backbone: str, size: int, message: str) -> None:
    config = {"_target_": "emotion.models.timm_backbone.TimmBackbone", "backbone": backbone}
    with pytest.raises(UserError, match=message):
        instantiate(config, num_classes=7, in_channels=3, input_size=size)
