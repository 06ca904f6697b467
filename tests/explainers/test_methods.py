"""Known answers of every explanation method; the methods are the files of conf/method."""

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from emotion.classifier import EmotionClassifier
from emotion.config.compose import compose
from emotion.config.instantiate import build
from emotion.errors import UserError
from emotion.explainers.attention import Attention
from emotion.explainers.explainer import Method
from emotion.explainers.gradcam import GradCam
from emotion.explainers.layers import as_maps, choices
from emotion.explainers.lime_regions import Lime
from emotion.explainers.occlusion import Occlusion
from emotion.explainers.shap_values import Shap
from emotion.models.timm_backbone import TimmBackbone
from tests.conftest import SYSTEMS, options
from tests.explainers.conftest import CORNER, classifier_of
from tests.models.test_models import faces, make, recipe

METHODS = [name for name in options("method") if name != "all"]
GRAD_CAM_LAYERS = {
    "attention_cnn": "features.3.0",
    "baseline_cnn": "features.3.0",
    "compact_cnn": "features.2",
    "fast_cnn": "features.3.3.body.3",
    "improved_cnn": "features.3.0",
    "resnet_cbam": "features.4.1.body.3",
    "simple_cnn": "features.3",
    "v1_cnn": "features.2.0.body.6",
    "v2_se": "features.3.0.body.3",
    "v4_attention": "features.3.0.body.3",
}
"""Of V4 as its document says: the last convolution of the fourth block's body."""


def method(name: str) -> Method:
    cfg = compose("explain", f"method={name}", "checkpoint=RUN")
    (config,) = OmegaConf.to_container(cfg.method, resolve=True).values()  # type: ignore[union-attr]
    made: Method = build(config)
    return made


def test_all_is_every_method_that_any_network_takes() -> None:
    cfg = compose("explain", "method=all", "checkpoint=RUN")
    assert {*cfg.method, "attention"} == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_network_that_looks_at_one_corner_lights_that_corner(
    name: str, corner: EmotionClassifier, bright_faces: Tensor
) -> None:
    maps = method(name)(corner, bright_faces, torch.zeros(4, dtype=torch.long))
    assert maps.shape == (4, 48, 48)
    lit = maps.clamp(min=0)
    inside = lit[:, :CORNER, :CORNER].sum((1, 2)) / lit.sum((1, 2))
    assert (inside > 0.9).all()
    assert (maps[:, :CORNER, :CORNER].mean((1, 2)) > 10 * maps[:, CORNER:, CORNER:].abs().mean((1, 2))).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_gives_the_same_again_and_leaves_the_network_as_it_was(
    name: str, corner: EmotionClassifier, bright_faces: Tensor
) -> None:
    before = {key: value.clone() for key, value in corner.state_dict().items()}
    drawn = torch.get_rng_state()
    first, second = (method(name)(corner, bright_faces, torch.zeros(4, dtype=torch.long)) for _ in range(2))
    assert first.equal(second)
    assert not first.requires_grad
    assert torch.get_rng_state().equal(drawn)
    assert all(value.equal(before[key]) for key, value in corner.state_dict().items())
    assert [parameter for parameter in corner.parameters() if parameter.grad is not None] == []
    assert [module for module in corner.modules() if module._forward_hooks] == []


@pytest.mark.parametrize("name", SYSTEMS)
def test_grad_cam_finds_each_networks_own_layer(name: str) -> None:
    assert make(name).cam_layer() == GRAD_CAM_LAYERS[name]  # type: ignore[operator]


@pytest.mark.parametrize("name", ["simple_cnn", "attention_cnn"])  # the first changes its maps in place by a ReLU
def test_grad_cam_is_the_papers_formula(name: str) -> None:
    net = make(name).eval()
    _, channels, size = recipe(name)
    some = faces(name)
    layer = net.get_submodule(GRAD_CAM_LAYERS[name])
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: seen.append(output) or output.clone())  # type: ignore[func-returns-value]
    logits = net(some)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[:, 2].sum(), seen[0])
    expected = (gradient.mean((2, 3), keepdim=True) * seen[0]).sum(1).clamp(min=0)
    expected = expected - expected.amin((1, 2), keepdim=True)
    found = GradCam()(classifier_of(net, 6, channels, size), some, torch.full((3,), 2))
    for one, other in zip(found, expected, strict=True):  # enlarged by OpenCV: compare what enlarging keeps
        peak = divmod(int(other.argmax()), other.shape[-1])
        near = divmod(int(one.argmax()), size)
        scale = size / other.shape[-1]
        assert all(abs((n + 0.5) / scale - (p + 0.5)) <= 1 for n, p in zip(near, peak, strict=True))


def test_a_wrong_layer_lists_the_right_ones(corner: EmotionClassifier, bright_faces: Tensor) -> None:
    with pytest.raises(
        UserError, match=r"layer=features.9: .* expected one of features.0, features.1, features.2, fea"
    ):
        GradCam("features.9")(corner, bright_faces, torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize("layer", [None, "features.backbone.blocks.3.norm1"])
def test_grad_cam_explains_a_transformer(layer: str | None) -> None:
    torch.manual_seed(0)
    net = TimmBackbone(5, 3, 64, "vit_tiny_patch16_224").eval()
    some = torch.rand(2, 3, 64, 64)
    assert net.cam_layer() == "features"
    assert "features.backbone.blocks.3.norm1" in choices(net, some[:1])
    for plus_plus in (False, True):
        maps = GradCam(layer, plus_plus)(classifier_of(net, 5, 3, 64), some, torch.tensor([0, 3]))
        assert maps.shape == (2, 64, 64)
        assert 0 <= maps.min() <= maps.max() <= 1
        assert maps.amax() > 0.99


def test_attention_of_a_transformer_is_its_rollout() -> None:
    torch.manual_seed(0)
    net = TimmBackbone(5, 3, 64, "vit_tiny_patch16_224").eval()
    for block in net.backbone.blocks:
        nn.init.zeros_(block.attn.qkv.weight)  # every patch looks at all alike
        nn.init.zeros_(block.attn.qkv.bias)
    maps = Attention()(classifier_of(net, 5, 3, 64), torch.rand(2, 3, 64, 64), torch.tensor([0, 3]))
    assert maps.equal(torch.zeros(2, 64, 64))
    nn.init.normal_(net.backbone.blocks[0].attn.qkv.weight)
    maps = Attention()(classifier_of(net, 5, 3, 64), torch.rand(2, 3, 64, 64), torch.tensor([0, 3]))
    assert maps.amin((1, 2)).tolist() == [0.0, 0.0]
    assert maps.amax((1, 2)).tolist() == [1.0, 1.0]
    assert net.backbone.blocks[0].attn.fused_attn


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_tokens_are_laid_out_row_by_row_after_those_without_a_place(prefix: int) -> None:
    tokens = torch.arange(4 + prefix).float().view(1, -1, 1)
    lay_out = as_maps(tokens, prefix)
    assert lay_out is not None
    assert (lay_out(tokens) - prefix).flatten().tolist() == [0, 1, 2, 3]
    before = as_maps(tokens[:, :4], prefix)  # of the patches alone, which some layers make
    assert before is not None


def test_attention_of_windows_or_of_fewer_tokens_is_refused() -> None:
    net = TimmBackbone(5, 3, 64, "pvt_v2_b0").eval()
    with pytest.raises(UserError, match="method=attention: pvt_v2_b0 has no attention over places"):
        Attention()(classifier_of(net, 5, 3, 64), torch.rand(2, 3, 64, 64), torch.tensor([0, 3]))


def test_attention_of_one_layer_is_that_layers(corner: EmotionClassifier, bright_faces: Tensor) -> None:
    targets = torch.zeros(4, dtype=torch.long)
    assert Attention("features.0")(corner, bright_faces, targets).equal(Attention()(corner, bright_faces, targets))
    with pytest.raises(UserError, match=r"layer=head is no spatial attention of this network; expected features.0"):
        Attention("head")(corner, bright_faces, targets)


@pytest.mark.parametrize("name", ["simple_cnn", "v2_se"])
def test_a_network_without_attention_over_places_says_so(name: str) -> None:
    _, channels, size = recipe(name)
    with pytest.raises(UserError, match=r"has no attention over places; .* Choose another method"):
        Attention()(classifier_of(make(name), 6, channels, size), faces(name), torch.zeros(3, dtype=torch.long))


def test_shap_values_add_up_to_what_the_face_adds(corner: EmotionClassifier, bright_faces: Tensor) -> None:
    targets = torch.zeros(4, dtype=torch.long)
    maps = Shap(samples=400)(corner, bright_faces, targets)
    greys = torch.linspace(0, 1, 9).view(-1, 1, 1, 1).expand(-1, 1, 48, 48)
    added = corner(bright_faces)[:, 0] - corner(greys)[:, 0].mean()
    torch.testing.assert_close(maps.sum((1, 2)), added, rtol=0.1, atol=0)


def test_occlusion_is_the_probability_that_goes(corner: EmotionClassifier, bright_faces: Tensor) -> None:
    maps = Occlusion(patch=1 / 2, step=1 / 2)(corner, bright_faces, torch.zeros(4, dtype=torch.long))
    covered = bright_faces.clone()
    covered[..., :CORNER, :CORNER] = 0
    lost = (corner.calibrated(bright_faces) - corner.calibrated(covered))[:, 0]
    torch.testing.assert_close(maps[:, 0, 0], lost)
    torch.testing.assert_close(maps[:, CORNER - 1, CORNER - 1], lost)


def test_lime_finds_the_region_that_counts(corner: EmotionClassifier, bright_faces: Tensor) -> None:
    maps = Lime(regions=2, samples=200)(corner, bright_faces[:1], torch.tensor([0]))
    regions = maps[0, 12::24, 12::24]
    assert regions.argmax() == 0
    assert regions.flatten()[1:].abs().max() < 0.1 * regions[0, 0]


REFUSED = [(Occlusion, {"patch": 0.1, "step": 0.2}), (Lime, {"regions": 1}), (Shap, {"samples": 0})]


@pytest.mark.parametrize(("kind", "settings"), REFUSED)
def test_settings_that_make_no_sense_are_refused(kind: type, settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        kind(**settings)
