"""Pretrained weights: which are loaded, resized or skipped, and which are refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from omegaconf import DictConfig
from safetensors.torch import save_file
from torch import nn

from emotion.checkpoints.load import load_checkpoint
from emotion.checkpoints.locate import zoo
from emotion.config.instantiate import instantiate
from emotion.errors import UserError
from emotion.models.fast_cnn import FastCNN
from emotion.models.timm_backbone import TimmBackbone
from emotion.train import train
from emotion.training import efficientnet_lite
from emotion.training.pretrained import LoadedWeights, load_into
from emotion.training.run import fit, setup
from emotion.training.setup import resolve
from tests.conftest import record_of
from tests.publishing.hub_stub import serving

CLASSES = ("one", "two")
RUN = Path("run")


def fill(net: nn.Module, source: str, size: int = 64, channels: int = 3) -> LoadedWeights:
    return load_into(net, source, size, channels, CLASSES)


@pytest.mark.parametrize("family", ["resnet10t", "convnext_atto", "mobilenetv3_small_050"])
def test_a_timm_file_fills_the_whole_backbone(family: str) -> None:
    whole = timm.create_model(family)
    save_file(whole.state_dict(), "whole.safetensors")
    Path("config.json").write_text('{"architecture": "any"}')  # as in the Hub's folders
    net = TimmBackbone(2, 3, 64, family)
    loaded = load_into(net, "whole.safetensors", 64, 3, CLASSES)
    assert loaded.initialized == ["head.classifier.1.weight", "head.classifier.1.bias"]
    assert len(loaded.skipped) == 2  # its classifier
    own = net.backbone.state_dict()
    assert all(value.equal(own[name]) for name, value in whole.state_dict().items() if name in own)
    assert loaded.digest is not None
    assert len(loaded.digest) == 64


@pytest.mark.parametrize("wrapper", ["module.", "model.", "_orig_mod."])
@pytest.mark.parametrize("place", ["state_dict", "model", None])
def test_prefixes_of_training_loops_are_removed(wrapper: str, place: str | None) -> None:
    state = {f"{wrapper}{name}": value for name, value in timm.create_model("resnet10t").state_dict().items()}
    torch.save({place: state, "epoch": 3} if place else state, "wrapped.pth")
    net = TimmBackbone(2, 3, 64, "resnet10t")
    loaded = load_into(net, "wrapped.pth", 64, 3, CLASSES)
    own = net.backbone.state_dict()
    assert len(loaded.loaded) == len(own)
    assert all(value.equal(state[f"{wrapper}{name}"]) for name, value in own.items())


def test_a_first_convolution_of_rgb_adapts_to_gray() -> None:
    rgb, gray = (TimmBackbone(2, channels, 64, "resnet10t").eval() for channels in (3, 1))
    torch.save(rgb.backbone.state_dict(), "rgb.pth")
    loaded = load_into(gray, "rgb.pth", 64, 1, CLASSES)
    assert [name.split()[0] for name in loaded.resized] == ["features.backbone.conv1.0.weight"]
    faces = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(
            gray.features(faces), rgb.features(faces.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4
        )


def test_a_first_convolution_of_gray_adapts_to_rgb() -> None:
    gray, rgb = (TimmBackbone(2, channels, 64, "resnet10t").eval() for channels in (1, 3))
    torch.save(gray.backbone.state_dict(), "gray.pth")
    fill(rgb, "gray.pth")
    faces = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(
            rgb.features(faces.expand(-1, 3, -1, -1)), gray.features(faces), atol=1e-4, rtol=1e-4
        )


def test_a_position_embedding_is_resampled_to_another_size() -> None:
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), "vit.pth")
    net = TimmBackbone(2, 3, 96, "vit_tiny_patch16_224")
    loaded = load_into(net, "vit.pth", 96, 3, CLASSES)
    assert loaded.resized == ["features.backbone.pos_embed 1x197x192 to 1x37x192"]


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    """A run of the small V4 on six classes."""
    return small_run(RUN, "trainer.max_epochs=1")


def fitted(cfg: DictConfig, run_dir: Path) -> nn.Module:
    """Train a run for an epoch without scoring it; return the network."""
    cfg.trainer.max_epochs = 1
    fit(run := setup(resolve(cfg, run_dir), cfg))
    return run.classifier.net


def test_a_run_of_the_same_classes_gives_all_its_weights(run: Path, small_config: Callable[..., DictConfig]) -> None:
    net = fitted(small_config(f"model.weights={run}", "optimizer.lr=0", "trainer.precision=32-true"), Path("again"))
    expected = load_checkpoint(run).classifier.net
    assert all(a.equal(b) for a, b in zip(net.parameters(), expected.parameters(), strict=True))
    weights = record_of(Path("again")).weights
    assert weights is not None
    assert weights["source"] == str(run)
    assert not weights["initialized"]


def test_a_run_of_other_classes_gives_all_but_its_last_layer(
    run: Path, small_config: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    fitted(small_config(f"model.weights={run}", "labels=seven"), Path("seven"))
    weights = record_of(Path("seven")).weights
    assert weights is not None
    assert weights["initialized"] == ["head.7.weight", "head.7.bias"]
    assert "2 newly initialized: head.7.weight, head.7.bias" in capsys.readouterr().out


def test_as_many_classes_with_other_names_are_other_classes(run: Path) -> None:
    net = instantiate(load_checkpoint(run).classifier.hparams["model"], num_classes=6, in_channels=1, input_size=48)
    loaded = load_into(net, str(run), 48, 1, ("a", "b", "c", "d", "e", "f"))
    assert loaded.initialized == ["head.7.weight", "head.7.bias"]


def test_a_resumed_run_does_not_need_its_weights(run: Path, small_config: Callable[..., DictConfig]) -> None:
    cfg = small_config(f"model.weights={run}")
    fitted(cfg, Path("again"))
    run.rename("gone")
    cfg.resume, cfg.trainer.max_epochs = "again", 2
    train(cfg, Path("again"))
    weights = record_of(Path("again")).weights
    assert weights is not None
    assert weights["source"] == str(run)


def test_pretrained_weights_come_from_the_hub(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = timm.create_model("test_resnet").state_dict()
    save_file(published, "hub.safetensors")
    net = TimmBackbone(2, 3, 64, "test_resnet")
    with serving(monkeypatch) as hub:
        hub.put("timm/test_resnet.r160_in1k", model_safetensors=Path("hub.safetensors").read_bytes())
        loaded = fill(net, "pretrained")
    own = net.backbone.state_dict()
    assert str(loaded) == (
        f"weights: timm/test_resnet.r160_in1k: {len(own)} tensors loaded\n"
        "  2 newly initialized: head.classifier.1.weight, head.classifier.1.bias"
    )
    assert all(value.equal(published[name]) for name, value in own.items())
    assert "weights: timm/test_resnet.r160_in1k, from the Hugging Face Hub" in capsys.readouterr().out


def test_imagenet_weights_of_an_installed_package_need_no_network(capfd: pytest.CaptureFixture[str]) -> None:
    """The logits are those of the network that the weights were published with, at 64x64 pixels."""
    net = TimmBackbone(7, 3, 64, "tf_efficientnet_lite0")
    loaded = fill(net, "pretrained")
    assert (len(loaded.loaded), loaded.resized) == (294, [])
    assert loaded.initialized == ["head.classifier.1.weight", "head.classifier.1.bias"]
    path = efficientnet_lite.weights_file()
    assert path is not None
    last = torch.load(path, weights_only=True)
    face = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    pooled = net.eval().features(face).mean((2, 3))
    logits = torch.nn.functional.linear(pooled, last["_fc.weight"], last["_fc.bias"])
    assert logits.argmax() == 782
    torch.testing.assert_close(logits[0, :3], torch.tensor([-0.4591710, -0.1270241, 0.9363153]), atol=1e-4, rtol=0)


def test_pretrained_weights_that_cannot_be_downloaded_are_refused_with_both_remedies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(Path("empty").absolute()))
    with pytest.raises(UserError, match=r"Connect this machine .* or give local weights: model.weights=FILE"):
        fill(TimmBackbone(2, 3, 64, "resnet10t"), "pretrained")


def test_without_the_hub_the_cache_is_used_or_the_weights_are_refused_without_retries(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    save_file(timm.create_model("test_resnet").state_dict(), "hub.safetensors")
    with serving(monkeypatch) as hub:
        hub.put("timm/test_resnet.r160_in1k", model_safetensors=Path("hub.safetensors").read_bytes())
        fill(TimmBackbone(2, 3, 64, "test_resnet"), "pretrained")
    assert not constants.HF_HUB_OFFLINE
    loaded = fill(TimmBackbone(2, 3, 64, "test_resnet"), "pretrained")  # the Hub no longer answers
    assert "timm/test_resnet.r160_in1k: " in str(loaded)
    with pytest.raises(UserError, match=r"resnet10t.* cannot be downloaded .*model.weights=FILE"):
        fill(TimmBackbone(2, 3, 64, "resnet10t"), "pretrained")
    assert "Retrying" not in capfd.readouterr().err
    assert not constants.HF_HUB_OFFLINE


def test_our_own_networks_have_no_published_weights(small_config: Callable[..., DictConfig]) -> None:
    with pytest.raises(UserError, match="there are no published weights of V4Attention"):
        train(small_config("model.weights=pretrained"), RUN)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "weights.ckpt"])
def test_a_damaged_file_is_refused(name: str) -> None:
    Path(name).write_bytes(b"\x80\x02nothing of the kind")
    with pytest.raises(UserError, match=f"{name} cannot be read as"):
        fill(TimmBackbone(2, 3, 64, "resnet10t"), name)


def test_own_weights_without_their_description_are_refused() -> None:
    Path("alone.safetensors").write_bytes(zoo()["fast_cnn"].read_bytes())
    with pytest.raises(UserError, match=r"alone.safetensors has neither alone.json nor config.json next to it"):
        fill(FastCNN(7), "alone.safetensors")


def test_weights_of_another_network_are_refused() -> None:
    torch.save(timm.create_model("convnext_atto").state_dict(), "other.pth")
    with pytest.raises(
        UserError, match=r"fits 0 % of TimmBackbone before its head.*: it has .*stem.*; the network has .*conv1"
    ):
        fill(TimmBackbone(2, 3, 64, "resnet10t"), "other.pth")


@pytest.mark.parametrize("missing", ["nowhere", "nowhere.pth"])
def test_a_missing_source_is_refused(missing: str) -> None:
    with pytest.raises(
        UserError, match=f"model.weights={missing}: {missing} does not exist; expected a run folder.* Or pretrained"
    ):
        fill(TimmBackbone(2, 3, 64, "resnet10t"), missing)


def test_weights_that_fit_less_than_half_of_a_network_are_refused() -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), "small.pth")
    with pytest.raises(UserError, match=r"fits \d+ % of TimmBackbone before its head, expected at least 50 %"):
        fill(TimmBackbone(2, 3, 64, "resnet18"), "small.pth")


def test_a_position_embedding_without_class_token_is_resampled() -> None:
    torch.save(timm.create_model("deit3_small_patch16_224").state_dict(), "deit3.pth")
    net = TimmBackbone(2, 3, 64, "deit3_small_patch16_224")
    loaded = load_into(net, "deit3.pth", 64, 3, CLASSES)
    assert loaded.resized == ["features.backbone.pos_embed 1x196x384 to 1x16x384"]


@pytest.mark.parametrize("settings", [{}, {"classes": ["a"]}])
def test_a_checkpoint_of_another_training_loop_is_read_by_its_names(settings: dict[str, object]) -> None:
    state = timm.create_model("resnet10t").state_dict()
    torch.save({"hyper_parameters": settings, "model": state}, "foreign.ckpt")
    assert len(load_into(TimmBackbone(2, 3, 64, "resnet10t"), "foreign.ckpt", 64, 3, CLASSES).skipped) == 2


def test_weights_that_timm_cannot_convert_are_refused() -> None:
    torch.save({name: value for name, value in timm.create_model("resnet10t").state_dict().items()}, "resnet.pth")
    with pytest.raises(UserError, match=r"not of convnext_atto|fits 0 %"):
        fill(TimmBackbone(2, 3, 64, "convnext_atto"), "resnet.pth")
