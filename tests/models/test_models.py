"""Contract of every network; parametrized by the files of conf/model, so that a new model is tested at once."""

import importlib
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import hydra.utils
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from emotion.config.compose import compose
from emotion.config.instantiate import instantiate
from emotion.errors import UserError
from emotion.models.blocks import CBAM, ChannelAttention, SpatialAttention
from emotion.runtime.hardware import can_compile
from tests.conftest import SYSTEMS, options, representative

PARAMETERS = {
    "attention_cnn": 3_948_011,
    "baseline_cnn": 3_915_143,
    "compact_cnn": 595_076,
    "fast_cnn": 667_503,
    "improved_cnn": 1_636_551,
    "resnet_cbam": 11_217_751,
    "simple_cnn": 595_655,
    "v1_cnn": 1_814_214,
    "v2_se": 5_566_146,
    "v4_attention": 5_566_542,
}
"""With the model's own labels and input: as published, or counted by hand.

V1: 39,360 + 230,528 + 1,510,400 in its blocks, 33,926 in its head. V2: V4 minus four spatial attentions of 99.
Fast CNN: 180 + 7,200 + 28,800 + 80,640 in the convolutions of its stages, 28,800 + 115,200 + 225,792 in its residual
blocks, 1,432 in normalizations, 791 in its head. ResNet-CBAM: a ResNet-18 without its head (11,176,512) with one input
channel (-6,272), four CBAMs (43,920), a head (3,591).
"""


RESIDUAL, CONV = "ResidualBlock", "Conv2d BatchNorm2d ReLU MaxPool2d"
POOLED = "AdaptiveAvgPool2d Flatten Dropout Linear"
FLAT = "Flatten Linear ReLU Dropout Linear"
LAYERS = {
    "attention_cnn": ([CONV] * 4 + ["ChannelAttention SpatialAttention"], FLAT),
    "baseline_cnn": ([CONV] * 4, FLAT),
    "compact_cnn": (["Conv2d LeakyReLU Conv2d LeakyReLU MaxPool2d"], "Flatten Linear LeakyReLU Linear"),
    "fast_cnn": (
        ["Conv2d BatchNorm2d SiLU"]
        + ["Conv2d MaxPool2d BatchNorm2d SiLU _Residual"] * 2
        + ["Conv2d BatchNorm2d SiLU _Residual"],
        POOLED,
    ),
    "improved_cnn": ([CONV] * 4, "Flatten Linear BatchNorm1d ReLU Dropout Linear ReLU Dropout Linear"),
    "resnet_cbam": ([CONV] + [f"{RESIDUAL} {RESIDUAL} ChannelAttention SpatialAttention"] * 4, POOLED),
    "simple_cnn": (["Conv2d ReLU MaxPool2d Conv2d ReLU MaxPool2d"], FLAT),
    "v1_cnn": ([f"{RESIDUAL} MaxPool2d"] * 3, f"{POOLED} ReLU BatchNorm1d Dropout Linear"),
    "v2_se": ([f"{RESIDUAL} SqueezeExcitation MaxPool2d"] * 4, f"{POOLED} ReLU BatchNorm1d Dropout Linear"),
    "v4_attention": (
        [f"{RESIDUAL} SqueezeExcitation SpatialAttention MaxPool2d"] * 4,
        f"{POOLED} ReLU BatchNorm1d Dropout Linear",
    ),
}
"""Layers and blocks in their order: the stages, and the head."""


every_model = pytest.mark.parametrize("model", SYSTEMS)
smallest_models = pytest.mark.parametrize("model", representative(SYSTEMS, "simple_cnn", "compact_cnn"))


@cache
def recipe(model: str) -> tuple[dict[str, Any], int, int, int]:
    """The config of a network, its channels, input size and number of classes."""
    cfg = compose("train", f"model={model}", "run_dir=x")
    config: dict[str, Any] = OmegaConf.to_container(cfg.model, resolve=True)  # type: ignore[assignment]
    config.pop("weights")
    return config, cfg.input.channels, cfg.input.size, len(cfg.labels)


def make(model: str, num_classes: int = 6, **changes: object) -> nn.Module:
    config, in_channels, input_size, _ = recipe(model)
    torch.manual_seed(0)
    settings = {"num_classes": num_classes, "in_channels": in_channels, "input_size": input_size} | changes
    net: nn.Module = instantiate(config, **settings)
    return net


def without_dropout(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


def faces(model: str, count: int = 3) -> Tensor:
    _, channels, size, _ = recipe(model)
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


@every_model
def test_module_and_class_are_named_after_the_config(model: str) -> None:
    module, name = recipe(model)[0]["_target_"].rsplit(".", 1)
    assert module == f"emotion.models.{model}"
    assert name.lower() == model.replace("_", "")
    assert issubclass(getattr(importlib.import_module(module), name), nn.Module)


@every_model
def test_parameter_count_is_as_published(model: str) -> None:
    with torch.device("meta"):
        net = make(model, recipe(model)[-1])
    assert sum(parameter.numel() for parameter in net.parameters()) == PARAMETERS[model]


@every_model
def test_the_class_alone_is_the_published_network(model: str) -> None:
    network = hydra.utils.get_class(recipe(model)[0]["_target_"])
    with torch.device("meta"):
        alone, composed = network(num_classes=recipe(model)[-1]), make(model, recipe(model)[-1])
    assert sum(parameter.numel() for parameter in alone.parameters()) == PARAMETERS[model]
    assert str(alone.features) == str(composed.features)  # every setting of a layer, and their order
    assert model == "fast_cnn" or str(alone.head) == str(composed.head)


def layers(part: nn.Module) -> list[str]:
    names = [layers(child) if type(child) in (nn.Sequential, CBAM) else [type(child).__name__] for child in part]  # type: ignore[attr-defined]
    return [name for several in names for name in several]


@pytest.mark.parametrize("model", LAYERS)
def test_layers_have_their_published_order(model: str) -> None:
    with torch.device("meta"):
        net = make(model)
    stages, head = LAYERS[model]
    assert " ".join(layers(net.features)) == " ".join(stages)
    assert " ".join(layers(net.head)) == head


@pytest.mark.parametrize("classes", [7, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (4, 6))])
@every_model
def test_logits_are_the_heads_of_each_face_alone_and_restored_with_the_weights(model: str, classes: int) -> None:
    net, other = make(model, classes).eval(), make(model, classes).eval()
    nn.init.normal_(next(other.parameters()))
    other.load_state_dict(net.state_dict())
    with torch.inference_mode():
        maps, logits = net.features(faces(model)), net(faces(model))
        assert maps.ndim == 4
        assert logits.shape == (3, classes)
        assert net.head(maps).equal(logits)
        torch.testing.assert_close(other(faces(model)[1:2]), logits[1:2], atol=1e-5, rtol=1e-4)


@every_model
def test_every_parameter_has_a_finite_gradient(model: str) -> None:
    net = make(model)
    nn.functional.cross_entropy(net(faces(model)), torch.tensor([0, 1, 2])).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@every_model
def test_channels_last_and_bfloat16_agree_with_float32(model: str) -> None:
    net, batch = make(model).eval(), faces(model)
    with torch.inference_mode():
        expected = net(batch)
        net.to(memory_format=torch.channels_last)
        torch.testing.assert_close(
            net(batch.contiguous(memory_format=torch.channels_last)), expected, atol=1e-4, rtol=1e-4
        )
        with torch.autocast("cpu", torch.bfloat16):
            half = net(batch).float()
    assert (half - expected).norm() <= 0.02 * expected.norm()


@smallest_models
def test_one_batch_can_be_overfitted(model: str) -> None:
    net, batch, targets = without_dropout(make(model)), faces(model, 4), torch.arange(4)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(40):
        loss = nn.functional.cross_entropy(net(batch), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.1:
            break
    assert loss < 0.1


@smallest_models
def test_a_compiled_network_has_the_same_logits_and_gradients(model: str) -> None:
    net, batch, targets = without_dropout(make(model)), faces(model), torch.tensor([0, 1, 2])
    state, results = {name: value.clone() for name, value in net.state_dict().items()}, []
    for run in (net, torch.compile(net, backend="aot_eager")):  # everything but code generation
        net.load_state_dict(state)
        net.zero_grad()
        logits = run(batch)
        nn.functional.cross_entropy(logits, targets).backward()
        results.append((logits.detach(), [p.grad.clone() for p in net.parameters() if p.grad is not None]))
    torch.testing.assert_close(results[1], results[0], atol=1e-4, rtol=1e-3)


@pytest.mark.skipif(not can_compile("cpu"), reason="needs a C++ compiler")
@pytest.mark.parametrize("attention", [lambda: ChannelAttention(16), SpatialAttention], ids=["channel", "spatial"])
def test_compiled_attention_in_bfloat16_has_the_gradients_of_float32(attention: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), attention())
    batch, weights = torch.randn(8, 3, 16, 16), torch.randn(8, 16, 16, 16)
    gradients = []
    for run, half in ((net, False), (torch.compile(net), True)):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            maps = run(batch)
        (maps * weights).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    expected, half_precision = gradients
    assert (half_precision - expected).norm() <= 0.1 * expected.norm()


@pytest.mark.parametrize("choice", options("input"))
@smallest_models
def test_every_choice_of_input_is_supported(model: str, choice: str) -> None:
    channels, size = input_shape(choice)
    net = make(model, in_channels=channels, input_size=size).eval()
    with torch.inference_mode():
        assert net(torch.randn(1, channels, size, size)).shape == (1, 6)


@cache
def input_shape(choice: str) -> tuple[int, int]:
    cfg = compose("train", f"input={choice}", "run_dir=x").input
    return cfg.channels, cfg.size


@every_model
def test_the_smallest_supported_input_is_named(model: str) -> None:
    channels = recipe(model)[1]
    with pytest.raises(
        UserError, match=rf"expected at least \d+x\d+ pixels .*, found 1x1 pixels and {channels}\."
    ) as refused:
        make(model, input_size=1)
    with pytest.raises(UserError, match=r"at least .* 1 channel, found 48x48 pixels and 0\."):
        make(model, in_channels=0, input_size=48)
    minimum = int(re.findall(r"at least (\d+)x", str(refused.value))[0])
    with torch.inference_mode():
        assert make(model, input_size=minimum).eval()(torch.randn(1, channels, minimum, minimum)).isfinite().all()
    with pytest.raises(UserError, match="Choose another input"):
        make(model, input_size=minimum - 1)


INVALID = {
    "simple_cnn": {"widths": [16, 32, 64]},
    "compact_cnn": {"widths": [16]},
    "improved_cnn": {"hidden": [512]},
    "v4_attention": {"dropout": [0.5]},
    "v2_se": {"reduction": 0},
    "v1_cnn": {"widths": [], "convs": []},
    "attention_cnn": {"reduction": 1024},
    "baseline_cnn": {"dropout": 2.0},
    "resnet_cbam": {"blocks": 0},
}


WRONG_LENGTHS = {
    "simple_cnn": ({"widths": [16, 32, 64]}, "widths: found 3 values, [16, 32, 64]; expected 2."),
    "compact_cnn": ({"widths": [16]}, "widths: found 1 value, [16]; expected 2."),
    "improved_cnn": ({"hidden": [512, 128, 64]}, "hidden: found 3 values, [512, 128, 64]; expected 2."),
    "v4_attention": (
        {"widths": [64, 128, 256]},
        "convs: found 4 values, [2, 2, 3, 2]; expected 3, one per width.",
    ),
    "v1_cnn": ({"dropout": [0.5]}, "dropout: found 1 value, [0.5]; expected 2."),
}


@pytest.mark.parametrize("model", WRONG_LENGTHS)
def test_lists_of_another_length_are_refused(model: str) -> None:
    settings, message = WRONG_LENGTHS[model]
    with pytest.raises(UserError, match=re.escape(message)):
        make(model, **settings)


@pytest.mark.parametrize("model", INVALID)
def test_invalid_settings_are_refused(model: str) -> None:
    config, channels, size, _ = recipe(model)
    with pytest.raises(UserError, match=config["_target_"]):
        instantiate(config | INVALID[model], num_classes=6, in_channels=channels, input_size=size)


def test_strides_dropouts_and_slopes_are_the_published_ones() -> None:
    nets = {model: make(model, 7) for model in SYSTEMS}
    dropouts = {
        model: [module.p for module in net.modules() if isinstance(module, nn.Dropout)] for model, net in nets.items()
    }
    assert dropouts == {
        "attention_cnn": [0.5], "baseline_cnn": [0.5], "compact_cnn": [], "fast_cnn": [0.2],
        "improved_cnn": [0.5, 0.25], "resnet_cbam": [0.3], "simple_cnn": [0.5], "v1_cnn": [0.5, 0.3],
        "v2_se": [0.5, 0.3], "v4_attention": [0.5, 0.3],
    }  # fmt: skip
    sides = {model: net.eval().features(faces(model, 1)).shape[-1] for model, net in nets.items()}
    assert sides == {
        "attention_cnn": 3, "baseline_cnn": 3, "compact_cnn": 24, "fast_cnn": 5, "improved_cnn": 3, "resnet_cbam": 2,
        "simple_cnn": 12, "v1_cnn": 8, "v2_se": 4, "v4_attention": 4,
    }  # fmt: skip
    assert {m.negative_slope for m in nets["compact_cnn"].modules() if isinstance(m, nn.LeakyReLU)} == {0.1}


def test_compact_cnn_is_initialized_as_published() -> None:
    """Kaiming normal, fan-out, LeakyReLU 0.1: deviation sqrt(2 / (1 + 0.1^2) / fan_out); biases zero."""
    net = make("compact_cnn", 4)
    for name, fan_out in (("features.0", 16 * 9), ("features.2", 32 * 9), ("head.1", 32)):
        layer = net.get_submodule(name)
        assert layer.weight.std().item() == pytest.approx((2 / 1.01 / fan_out) ** 0.5, rel=0.1)
        assert layer.bias.abs().sum() == 0
