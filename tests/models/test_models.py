"""What every network keeps to; the parameters are the files of conf/model, so a new one is tested the day it comes."""

import importlib
import re
from functools import cache

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from emotion.config.compose import compose
from emotion.config.instantiate import build
from emotion.errors import UserError
from tests.conftest import SYSTEMS, options

MODELS = SYSTEMS
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
"""With each model's own labels and input: as the documents count them, and by hand where they do not.

V1: 39,360 + 230,528 + 1,510,400 of its blocks, 33,926 of its head. V2: V4 less four spatial attentions of 99.
Fast CNN: 180 + 7,200 + 28,800 + 80,640 of its stages' convolutions, 28,800 + 115,200 + 225,792 of its residuals',
1,432 of normalisations, 791 of its head. ResNet-CBAM: a ResNet-18 without its head (11,176,512), of one channel
(- 6,272), four CBAMs (43,920), a head (3,591).
"""


@cache
def recipe(model: str) -> tuple[dict[str, object], int, int]:
    cfg = compose("train", f"model={model}", "run_dir=x")
    config = {
        name: value for name, value in OmegaConf.to_container(cfg.model, resolve=True).items() if name != "weights"
    }  # type: ignore[union-attr]
    return config, cfg.input.channels, cfg.input.size  # type: ignore[return-value]


def make(model: str, num_classes: int = 6) -> nn.Module:
    config, channels, size = recipe(model)
    torch.manual_seed(0)
    net: nn.Module = build(config, num_classes=num_classes, in_channels=channels, input_size=size)
    return net


def faces(model: str, count: int = 3) -> Tensor:
    _, channels, size = recipe(model)
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model", MODELS)
def test_names_agree(model: str) -> None:
    module, name = recipe(model)[0]["_target_"].rsplit(".", 1)  # type: ignore[attr-defined]
    assert module == f"emotion.models.{model}"
    assert name.lower() == model.replace("_", "")
    assert issubclass(getattr(importlib.import_module(module), name), nn.Module)


@pytest.mark.parametrize("model", MODELS)
def test_parameters_are_as_published(model: str) -> None:
    classes = len(compose("train", f"model={model}").labels)
    assert sum(parameter.numel() for parameter in make(model, classes).parameters()) == PARAMETERS[model]


@pytest.mark.parametrize("classes", [4, 6, 7])
@pytest.mark.parametrize("model", MODELS)
def test_features_are_maps_and_logits_one_a_class(model: str, classes: int) -> None:
    net = make(model, classes).eval()
    maps = net.features(faces(model))
    assert maps.ndim == 4
    assert net.head(maps).equal(net(faces(model)))
    assert net(faces(model)).shape == (3, classes)


@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_learns(model: str) -> None:
    net = make(model)
    nn.functional.cross_entropy(net(faces(model)), torch.tensor([0, 1, 2])).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("model", MODELS)
def test_evaluation_of_a_face_does_not_depend_on_the_others(model: str) -> None:
    net = make(model).eval()
    with torch.inference_mode():
        torch.testing.assert_close(net(faces(model))[1:2], net(faces(model)[1:2]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_state_dict_makes_an_equal_network(model: str) -> None:
    one, other = make(model).eval(), make(model).eval()
    nn.init.normal_(next(other.parameters()))
    other.load_state_dict(one.state_dict())
    with torch.inference_mode():
        assert one(faces(model)).equal(other(faces(model)))


@pytest.mark.parametrize("model", MODELS)
def test_channels_last_and_bf16_agree_with_fp32(model: str) -> None:
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


@pytest.mark.parametrize("model", MODELS)
def test_one_batch_is_learnt_by_heart(model: str) -> None:
    net, batch, targets = make(model), faces(model, 4), torch.arange(4)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(40):
        loss = nn.functional.cross_entropy(net(batch), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.1:
            break
    assert loss < 0.1


@pytest.mark.parametrize("model", MODELS)
def test_compiled_it_computes_the_same(model: str) -> None:
    net, batch, targets = make(model), faces(model), torch.tensor([0, 1, 2])
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # a compiled network draws its own
    state, found = {name: value.clone() for name, value in net.state_dict().items()}, []
    for run in (net, torch.compile(net, backend="aot_eager")):  # all of compilation but the machine code
        net.load_state_dict(state)
        net.zero_grad()
        logits = run(batch)
        nn.functional.cross_entropy(logits, targets).backward()
        found.append((logits.detach(), [p.grad.clone() for p in net.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", options("input"))
def test_any_input_will_do_that_is_large_enough(model: str, kind: str) -> None:
    cfg = compose("train", f"input={kind}", "run_dir=x")
    size, channels = cfg.input.size, cfg.input.channels
    net: nn.Module = build(recipe(model)[0], num_classes=6, in_channels=channels, input_size=size).eval()
    with torch.inference_mode():
        assert net(torch.randn(1, channels, size, size)).shape == (1, 6)


@pytest.mark.parametrize("model", MODELS)
def test_an_input_that_it_cannot_take_is_refused_naming_both(model: str) -> None:
    config, channels, _ = recipe(model)
    with pytest.raises(UserError, match=rf"takes at least \d+x\d+ pixels.*found 1x1 pixels of {channels}\."):
        build(config, num_classes=6, in_channels=channels, input_size=1)
    with pytest.raises(UserError, match=r"at least one channel; found 48x48 pixels of 0\."):
        build(config, num_classes=6, in_channels=0, input_size=48)


@pytest.mark.parametrize("model", MODELS)
def test_the_smallest_input_that_it_names_will_do(model: str) -> None:
    config, channels, _ = recipe(model)
    with pytest.raises(UserError) as refused:
        build(config, num_classes=6, in_channels=channels, input_size=1)
    found = re.search(r"at least (\d+)x", str(refused.value))
    assert found
    least = int(found[1])
    net: nn.Module = build(config, num_classes=6, in_channels=channels, input_size=least).eval()
    with torch.inference_mode():
        assert net(torch.randn(1, channels, least, least)).isfinite().all()
    with pytest.raises(UserError, match="Choose another input"):
        build(config, num_classes=6, in_channels=channels, input_size=least - 1)


WRONG = {
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


@pytest.mark.parametrize("model", WRONG)
def test_settings_that_describe_no_such_network_are_refused(model: str) -> None:
    config, channels, size = recipe(model)
    with pytest.raises(UserError, match="was refused its settings"):
        build(config | WRONG[model], num_classes=6, in_channels=channels, input_size=size)


def test_compact_cnn_begins_as_its_document_says() -> None:
    """Kaiming normal, fan-out, LeakyReLU 0.1: deviation sqrt(2 / (1 + 0.1^2) / fan_out); biases zero."""
    net = make("compact_cnn", 4)
    for name, fan_out in (("features.0", 16 * 9), ("features.2", 32 * 9), ("head.1", 32)):
        layer = net.get_submodule(name)
        assert layer.weight.std().item() == pytest.approx((2 / 1.01 / fan_out) ** 0.5, rel=0.1)
        assert layer.bias.abs().sum() == 0
