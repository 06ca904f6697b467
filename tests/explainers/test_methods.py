"""Known answers of every explainer in conf/explainer."""

from itertools import product

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from emotion.classifier import EmotionClassifier
from emotion.config.compose import compose
from emotion.config.instantiate import instantiate
from emotion.errors import UserError
from emotion.explainers.attention import Attention
from emotion.explainers.explainer import EnsembleExplainer, Explainer
from emotion.explainers.gradcam import GradCam
from emotion.explainers.layers import feature_map_layers, to_feature_maps
from emotion.explainers.lime import Lime
from emotion.explainers.occlusion import Occlusion
from emotion.explainers.shap import Shap
from emotion.models.timm_backbone import TimmBackbone
from tests.conftest import options, representative
from tests.explainers.conftest import CORNER, classifier_of, ensemble_of
from tests.models.test_models import faces, make, recipe

EXPLAINERS = [name for name in options("explainer") if name != "all"]
BRIGHT = torch.zeros(4, dtype=torch.long)
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
    "v4_attention": "features.3.0.body.3",  # as documented: the last convolution in the body of the fourth block
}


def make_explainer(name: str) -> Explainer:
    cfg = compose("explain", f"explainer={name}", "checkpoint=RUN")
    (config,) = OmegaConf.to_container(cfg.explainer, resolve=True).values()  # type: ignore[union-attr]
    explainer: Explainer = instantiate(config)
    return explainer


@pytest.fixture
def transformer() -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(5, 3, 64, "vit_tiny_patch16_224").eval()


@pytest.fixture
def windowed() -> TimmBackbone:
    """A Swin transformer whose attention is computed step by step, as on a machine without a fused kernel."""
    torch.manual_seed(0)
    net = TimmBackbone(5, 3, 96, "swin_tiny_patch4_window7_224").eval()
    for module in net.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return net


def test_all_covers_every_explainer_that_works_with_any_network() -> None:
    assert {*compose("explain", "explainer=all", "checkpoint=RUN").explainer, "attention"} == set(EXPLAINERS)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_maps_mark_the_corner_are_deterministic_and_leave_no_trace(
    name: str, corner: EmotionClassifier, bright_faces: Tensor
) -> None:
    state = {key: value.clone() for key, value in corner.state_dict().items()}
    generator = torch.get_rng_state()
    maps, again = (make_explainer(name)(corner, bright_faces, BRIGHT) for _ in range(2))
    assert maps.shape == (4, 48, 48)
    positive = maps.clamp(min=0)
    assert (positive[:, :CORNER, :CORNER].sum((1, 2)) / positive.sum((1, 2)) > 0.9).all()
    assert (maps[:, :CORNER, :CORNER].mean((1, 2)) > 10 * maps[:, CORNER:, CORNER:].abs().mean((1, 2))).all()
    assert maps.equal(again)
    assert not maps.requires_grad
    assert torch.get_rng_state().equal(generator)
    assert all(value.equal(state[key]) for key, value in corner.state_dict().items())
    assert [parameter for parameter in corner.parameters() if parameter.grad is not None] == []
    assert [module for module in corner.modules() if module._forward_hooks] == []


@pytest.mark.parametrize("name", representative(GRAD_CAM_LAYERS, "simple_cnn", "v4_attention"))
def test_grad_cam_layer_of_each_network(name: str) -> None:
    assert make(name).cam_layer() == GRAD_CAM_LAYERS[name]  # type: ignore[operator]


@pytest.mark.parametrize("name", ["simple_cnn", "attention_cnn"])  # the ReLU of the first modifies its input in place
def test_grad_cam_matches_the_formula_of_the_paper(name: str) -> None:
    net, batch = make(name).eval(), faces(name)
    _, channels, size, _ = recipe(name)
    outputs: list[Tensor] = []
    hook = net.get_submodule(GRAD_CAM_LAYERS[name]).register_forward_hook(
        lambda module, inputs, output: outputs.append(output) or output.clone()  # type: ignore[func-returns-value]
    )
    logits = net(batch)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[:, 2].sum(), outputs[0])
    expected = (gradient.mean((2, 3), keepdim=True) * outputs[0]).sum(1).clamp(min=0)
    maps = GradCam()(classifier_of(net, 6, channels, size), batch, torch.full((3,), 2))
    for actual, small in zip(maps, expected, strict=True):  # OpenCV enlarges the map: compare the position of the peak
        scale = size / small.shape[-1]
        peaks = zip(divmod(int(actual.argmax()), size), divmod(int(small.argmax()), small.shape[-1]), strict=True)
        assert all(abs((large + 0.5) / scale - (peak + 0.5)) <= 1 for large, peak in peaks)


def test_unknown_layers_are_refused_with_the_valid_ones(corner: EmotionClassifier, bright_faces: Tensor) -> None:
    with pytest.raises(UserError, match=r"layer=features.9: .*:\n  features\n  features.2\n  features.1\n  fea"):
        GradCam("features.9")(corner, bright_faces, BRIGHT)
    with pytest.raises(UserError, match=r"layer=head is not a spatial attention layer; expected features.0"):
        Attention("head")(corner, bright_faces, BRIGHT)


@pytest.mark.parametrize("layer", [None, "features.backbone.blocks.3.norm1"])
def test_grad_cam_of_a_transformer(layer: str | None, transformer: TimmBackbone) -> None:
    batch = torch.rand(2, 3, 64, 64)
    assert transformer.cam_layer() == "features"
    assert "features.backbone.blocks.3.norm1" in feature_map_layers(transformer, batch[:1])
    for plus_plus in (False, True):
        maps = GradCam(layer, plus_plus)(classifier_of(transformer, 5, 3, 64), batch, torch.tensor([0, 3]))
        assert maps.shape == (2, 64, 64)
        assert 0 <= maps.min() <= maps.max() <= 1
        assert maps.amax() > 0.99


def test_layers_with_windows_and_attention_matrices_have_no_feature_maps(windowed: TimmBackbone) -> None:
    classifier, batch = classifier_of(windowed, 5, 3, 96), torch.rand(2, 3, 96, 96)
    layers, blocks = feature_map_layers(windowed, batch[:1]), "features.backbone.layers"
    assert f"{blocks}.1.blocks.0.attn.proj" not in layers  # 4 windows of 7 x 7 tokens
    assert f"{blocks}.3.blocks.1.attn.proj" in layers  # one window
    assert f"{blocks}.3.blocks.1.attn" in layers
    assert not [name for name in layers if name.endswith(("attn_drop", "softmax"))]
    for layer, plus_plus in product(("1", "2.blocks.0.mlp.fc1", "3.blocks.1.attn.proj"), (False, True)):
        assert GradCam(f"{blocks}.{layer}", plus_plus)(classifier, batch, torch.tensor([0, 3])).shape == (2, 96, 96)
    with pytest.raises(UserError, match=r"has no such layer") as error:
        GradCam(f"{blocks}.1.blocks.0.attn.proj")(classifier, batch, torch.tensor([0, 3]))
    assert len(str(error.value).splitlines()) == 22
    assert f"and {len(layers) - 20} more" in str(error.value)


def test_maps_with_the_channels_last_are_laid_out_alike() -> None:
    maps = torch.rand(2, 5, 4, 4)
    assert maps.equal(to_feature_maps(maps.permute(0, 2, 3, 1), 0))  # type: ignore[arg-type]


def test_an_explainer_must_return_one_map_of_each_face(corner: EmotionClassifier, bright_faces: Tensor) -> None:
    class OfWindows(Occlusion):
        def __call__(self, classifier: EmotionClassifier, faces: Tensor, targets: Tensor) -> Tensor:
            return faces[:, 0].repeat(4, 1, 1)

    with pytest.raises(UserError, match="OfWindows returned 16 maps of 4 faces; expected one of each face"):
        EnsembleExplainer(ensemble_of(corner), OfWindows()).maps(bright_faces, BRIGHT)


def test_attention_of_a_transformer_is_its_rollout(transformer: TimmBackbone) -> None:
    for block in transformer.backbone.blocks:
        nn.init.zeros_(block.attn.qkv.weight)  # every patch attends to all others equally
        nn.init.zeros_(block.attn.qkv.bias)
    classifier, batch = classifier_of(transformer, 5, 3, 64), torch.rand(2, 3, 64, 64)
    assert Attention()(classifier, batch, torch.tensor([0, 3])).equal(torch.zeros(2, 64, 64))
    nn.init.normal_(transformer.backbone.blocks[0].attn.qkv.weight)
    maps = Attention()(classifier, batch, torch.tensor([0, 3]))
    assert maps.amin((1, 2)).tolist() == [0.0, 0.0]
    assert maps.amax((1, 2)).tolist() == [1.0, 1.0]
    assert transformer.backbone.blocks[0].attn.fused_attn


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_tokens_are_laid_out_row_by_row_without_the_prefix(prefix: int) -> None:
    tokens = torch.arange(4 + prefix).float().view(1, -1, 1)
    maps = to_feature_maps(tokens, prefix)
    assert maps is not None
    assert (maps - prefix).flatten().tolist() == [0, 1, 2, 3]
    assert to_feature_maps(tokens[:, :4], prefix) is not None  # patches alone, which some layers output


def test_attention_of_one_layer(corner: EmotionClassifier, bright_faces: Tensor) -> None:
    assert Attention("features.0")(corner, bright_faces, BRIGHT).equal(Attention()(corner, bright_faces, BRIGHT))


@pytest.mark.parametrize("name", ["simple_cnn", "v2_se", "pvt_v2_b0"])
def test_networks_without_spatial_attention_are_refused(name: str) -> None:
    if name == "pvt_v2_b0":  # attention over fewer tokens than patches
        classifier, batch = classifier_of(TimmBackbone(5, 3, 64, name).eval(), 5, 3, 64), torch.rand(3, 3, 64, 64)
    else:
        _, channels, size, _ = recipe(name)
        classifier, batch = classifier_of(make(name), 6, channels, size), faces(name)
    with pytest.raises(UserError, match=r"explainer=attention: .* has no spatial attention; .* Choose another"):
        Attention()(classifier, batch, torch.zeros(3, dtype=torch.long))


def test_shap_values_sum_to_the_logit_relative_to_blank_faces(corner: EmotionClassifier, bright_faces: Tensor) -> None:
    maps = Shap(samples=400)(corner, bright_faces, BRIGHT)
    blank = torch.linspace(0, 1, 9).view(-1, 1, 1, 1).expand(-1, 1, 48, 48)
    expected = corner(bright_faces)[:, 0] - corner(blank)[:, 0].mean()
    torch.testing.assert_close(maps.sum((1, 2)), expected, rtol=0.1, atol=0)


def test_occlusion_is_the_probability_lost(corner: EmotionClassifier, bright_faces: Tensor) -> None:
    maps = Occlusion(patch=1 / 2, step=1 / 2)(corner, bright_faces, BRIGHT)
    covered = bright_faces.clone()
    covered[..., :CORNER, :CORNER] = 0
    lost = (corner.calibrated_probabilities(bright_faces) - corner.calibrated_probabilities(covered))[:, 0]
    torch.testing.assert_close(maps[:, 0, 0], lost)
    torch.testing.assert_close(maps[:, CORNER - 1, CORNER - 1], lost)


def test_lime_finds_the_region_that_matters(corner: EmotionClassifier, bright_faces: Tensor) -> None:
    regions = Lime(regions=2, samples=200)(corner, bright_faces[:1], torch.tensor([0]))[0, 12::24, 12::24]
    assert regions.argmax() == 0
    assert regions.flatten()[1:].abs().max() < 0.1 * regions[0, 0]


@pytest.mark.parametrize(
    ("kind", "settings"), [(Occlusion, {"patch": 0.1, "step": 0.2}), (Lime, {"regions": 1}), (Shap, {"samples": 0})]
)
def test_invalid_settings_are_refused(kind: type, settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        kind(**settings)


@pytest.mark.parametrize("name", ["attention", "gradcam", "occlusion"])
def test_a_network_in_bfloat16_has_maps_in_float32(name: str, transformer: TimmBackbone) -> None:
    classifier = classifier_of(transformer, 5, 3, 64)
    faces, targets = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.zeros(2).long()
    maps = [
        EnsembleExplainer(ensemble_of(classifier), make_explainer(name), precision).maps(faces, targets)
        for precision in ("32-true", "bf16-mixed")
    ]
    assert maps[1].dtype is torch.float32
    assert torch.corrcoef(torch.stack([one.flatten() for one in maps]))[0, 1] > 0.98
    assert not maps[0].equal(maps[1])
