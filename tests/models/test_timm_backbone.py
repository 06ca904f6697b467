"""Backbones of timm: the document's four at their full size, a small one in depth."""

import numpy as np
import pytest
import timm
import torch
from omegaconf import OmegaConf
from pytorch_grad_cam import GradCAM
from torch import Tensor, nn

from emotion.callbacks.staged_unfreezing import freeze
from emotion.config.compose import compose
from emotion.config.instantiate import build
from emotion.errors import UserError
from emotion.models.timm_backbone import TimmBackbone
from tests.conftest import BACKBONES

FAMILIES = {  # maps, maps with the channels last, tokens with and without a class token, trained layers behind the pool
    "resnet10t": 64,
    "swin_tiny_patch4_window7_224": 56,
    "vit_tiny_patch16_224": 48,
    "mixer_s16_224": 224,
    "mobilenetv3_small_050": 64,
    "convnext_atto": 64,
}


WITHOUT_CLASSIFIER = {  # as published, less 1,000 classes of so many numbers
    "resnet18": 11_689_512 - 1000 * 513,
    "resnet50": 25_557_032 - 1000 * 2049,
    "convnext_base": 88_591_464 - 1000 * 1025,
    "tf_efficientnet_b3_ns": 12_233_232 - 1000 * 1537,
    "vit_base_patch16_224": 86_567_656 - 1000 * 769,
}

HEAD = {"resnet50": 512 * 2049 + 2 * 512 + 7 * 513, "resnet18": 7 * 513, "convnext_base": 7 * 1025} | {
    "tf_efficientnet_b3_ns": 7 * 1537,
    "vit_base_patch16_224": 7 * 769,
}
WHOLE = {model: count + HEAD[model] for model, count in WITHOUT_CLASSIFIER.items()}


def named(model: str) -> tuple[TimmBackbone, Tensor]:
    """A model of conf/model, its weights drawn, and two faces."""
    cfg = compose("train", f"model={model}", "run_dir=x")
    config = {
        name: value for name, value in OmegaConf.to_container(cfg.model, resolve=True).items() if name != "weights"
    }  # type: ignore[union-attr]
    torch.manual_seed(0)
    net: TimmBackbone = build(config, num_classes=7, in_channels=cfg.input.channels, input_size=cfg.input.size)
    return net, torch.randn(2, cfg.input.channels, cfg.input.size, cfg.input.size)


@pytest.mark.parametrize("model", BACKBONES)
def test_a_named_backbone_has_the_parameters_that_it_is_known_for(model: str) -> None:
    with torch.device("meta"):  # nothing is drawn
        net, _ = named(model)
    assert sum(parameter.numel() for parameter in net.backbone.parameters()) == WITHOUT_CLASSIFIER[model]
    assert sum(parameter.numel() for parameter in net.parameters()) == WHOLE[model]


@pytest.mark.parametrize("model", BACKBONES)
def test_a_named_backbone_trains_frozen_and_unfrozen(model: str) -> None:
    net, faces = named(model)
    groups = [{"params": list(net.parameters())}]
    optimizer = torch.optim.AdamW(groups, 1e-3)
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


@pytest.mark.parametrize("model", BACKBONES)
def test_a_named_backbone_gives_what_grad_cam_needs(model: str) -> None:
    net, faces = named(model)
    net.eval()
    with GradCAM(net, [net.features]) as cam:
        maps = cam(faces, None)
    assert maps.shape == (2, *faces.shape[2:])
    assert np.isfinite(maps).all()
    assert maps.max() > 0.9


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_maps_and_forward_is_the_head_of_them(family: str) -> None:
    net = TimmBackbone(7, 1, FAMILIES[family], family).eval()
    faces = torch.randn(2, 1, FAMILIES[family], FAMILIES[family])
    with torch.inference_mode():
        maps = net.features(faces)
        assert maps.ndim == 4
        assert maps.shape[2] == maps.shape[3]
        assert net.head(maps).equal(net(faces))
        assert net(faces).shape == (2, 7)


@pytest.mark.parametrize(
    "family", ["resnet10t", "mobilenetv3_small_050", "convnext_atto", "swin_tiny_patch4_window7_224"]
)
def test_logits_are_those_of_timm_s_own_model(family: str) -> None:
    """All but transformers with a class token, whose patches are averaged here."""
    size = FAMILIES[family]
    net = TimmBackbone(7, 3, size, family).eval()
    sized = {"img_size": size} if family.startswith("swin") else {}
    whole = timm.create_model(family, num_classes=7, **sized).eval()
    whole.load_state_dict(net.backbone.state_dict(), strict=False)
    whole.get_classifier().load_state_dict(net.head.classifier[-1].state_dict())
    faces = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        torch.testing.assert_close(net(faces), whole(faces))


def test_the_head_of_resnet50_is_the_document_s() -> None:
    layers = [type(layer) for layer in named("resnet50")[0].head.classifier]
    assert layers == [nn.Linear, nn.ReLU, nn.LayerNorm, nn.Dropout, nn.Linear]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_a_depth_and_only_the_head_the_largest(family: str) -> None:
    net = TimmBackbone(7, 3, FAMILIES[family], family, hidden=8)
    depths = net.depths()
    assert list(depths) == [name for name, _ in net.named_parameters()]
    assert sorted(set(depths.values())) == list(range(max(depths.values()) + 1))
    assert {name for name, depth in depths.items() if depth == max(depths.values())} == {
        name for name in depths if name.startswith("head.")
    }


def test_no_parameter_stands_in_the_state_twice() -> None:
    net = TimmBackbone(7, 3, 64, "mobilenetv3_small_050")
    state = net.state_dict()
    assert sum("conv_head.weight" in name for name in state) == 1
    assert len({value.data_ptr() for name, value in state.items() if value.numel() > 1}) == len(
        [value for value in state.values() if value.numel() > 1]
    )


def test_compiled_and_in_bf16_it_computes_the_same() -> None:
    net, faces = TimmBackbone(7, 3, 64, "resnet10t").eval(), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = net(faces)
        torch.testing.assert_close(torch.compile(net, backend="aot_eager")(faces), expected, atol=1e-4, rtol=1e-4)
        net.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            half = net(faces.contiguous(memory_format=torch.channels_last)).float()
    assert (half - expected).norm() <= 0.05 * expected.norm()


@pytest.mark.parametrize(
    ("backbone", "size", "says"),
    [
        ("resnt18", 64, r"timm has no backbone 'resnt18'; expected .* such as resnet18"),
        ("vgg11", 16, r"vgg11 cannot take 16x16 pixels of 3: .*Choose another input"),
        ("maxvit_tiny_tf_224", 100, r"maxvit_tiny_tf_224 cannot take 100x100 pixels of 3: .*divisible"),
        ("pit_ti_224", 224, "pit_ti_224 does not tell its blocks apart"),
        ("volo_d1_224", 32, "tokens are no square"),
        ("nest_tiny", 50, "nest_tiny cannot take 50x50 pixels"),
        ("coat_tiny", 224, "its features are neither maps nor tokens"),
    ],
)
def test_a_backbone_that_cannot_be_had_is_refused_naming_why(backbone: str, size: int, says: str) -> None:
    config = {"_target_": "emotion.models.timm_backbone.TimmBackbone", "backbone": backbone}
    with pytest.raises(UserError, match=says):
        build(config, num_classes=7, in_channels=3, input_size=size)
