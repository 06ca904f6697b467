"""Weights from elsewhere: what is loaded, resized, skipped, and what is refused."""

import os
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import timm
import torch
from omegaconf import DictConfig
from safetensors.torch import save_file
from torch import nn

from emotion.checkpoints.load import load_checkpoint
from emotion.config.instantiate import instantiate
from emotion.errors import UserError
from emotion.models.timm_backbone import TimmBackbone
from emotion.records.run_record import read_record
from emotion.train import train
from emotion.training.pretrained import load_into

CLASSES = ("one", "two")
RUN = Path("run")


def fill(net: nn.Module, source: str, size: int = 64, channels: int = 3) -> object:
    return load_into(net, source, size, channels, CLASSES)


@pytest.mark.parametrize("family", ["resnet10t", "convnext_atto", "mobilenetv3_small_050"])
def test_a_file_of_timm_fills_the_whole_backbone(family: str) -> None:
    whole = timm.create_model(family)
    save_file(whole.state_dict(), "whole.safetensors")
    net = TimmBackbone(2, 3, 64, family)
    loaded = load_into(net, "whole.safetensors", 64, 3, CLASSES)
    assert loaded.drawn == ["head.classifier.1.weight", "head.classifier.1.bias"]
    assert len(loaded.skipped) == 2  # its classifier
    own = net.backbone.state_dict()
    assert all(value.equal(own[name]) for name, value in whole.state_dict().items() if name in own)
    assert loaded.digest is not None
    assert len(loaded.digest) == 64


@pytest.mark.parametrize("wrapper", ["module.", "model.", "_orig_mod."])
@pytest.mark.parametrize("place", ["state_dict", "model", None])
def test_what_training_loops_wrap_around_is_taken_off(wrapper: str, place: str | None) -> None:
    state = {f"{wrapper}{name}": value for name, value in timm.create_model("resnet10t").state_dict().items()}
    torch.save({place: state, "epoch": 3} if place else state, "wrapped.pth")
    net = TimmBackbone(2, 3, 64, "resnet10t")
    loaded = load_into(net, "wrapped.pth", 64, 3, CLASSES)
    assert len(loaded.loaded) == len(net.backbone.state_dict())


def test_a_first_convolution_over_rgb_sees_grey_as_equal_red_green_and_blue() -> None:
    rgb, grey = (TimmBackbone(2, channels, 64, "resnet10t").eval() for channels in (3, 1))
    torch.save(rgb.backbone.state_dict(), "rgb.pth")
    loaded = load_into(grey, "rgb.pth", 64, 1, CLASSES)
    assert [name.split()[0] for name in loaded.resized] == ["features.backbone.conv1.0.weight"]
    faces = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(
            grey.features(faces), rgb.features(faces.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4
        )


def test_a_first_convolution_over_grey_sees_rgb_likewise() -> None:
    grey, rgb = (TimmBackbone(2, channels, 64, "resnet10t").eval() for channels in (1, 3))
    torch.save(grey.backbone.state_dict(), "grey.pth")
    fill(rgb, "grey.pth")
    faces = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(
            rgb.features(faces.expand(-1, 3, -1, -1)), grey.features(faces), atol=1e-4, rtol=1e-4
        )


def test_a_transformer_s_places_are_laid_out_for_another_size() -> None:
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), "vit.pth")
    net = TimmBackbone(2, 3, 96, "vit_tiny_patch16_224")
    loaded = load_into(net, "vit.pth", 96, 3, CLASSES)
    assert loaded.resized == ["features.backbone.pos_embed 1x197x192 to 1x37x192"]


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    """Of the small V4 on six classes."""
    return small_run(RUN, "trainer.max_epochs=1")


def test_a_run_of_the_same_classes_gives_all_its_weights(run: Path, small_config: Callable[..., DictConfig]) -> None:
    train(
        small_config(f"model.weights={run}", "trainer.max_epochs=1", "optimizer.lr=0", "trainer.precision=32-true"),
        Path("again"),
    )
    one, other = (load_checkpoint(folder).classifier.net for folder in (run, Path("again")))
    assert all(a.equal(b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    record = read_record(Path("again"))
    assert record is not None
    assert record["weights"]["source"] == str(run)
    assert not record["weights"]["drawn"]


def test_a_run_of_other_classes_gives_all_but_its_last_layer(
    run: Path, small_config: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    train(small_config(f"model.weights={run}", "labels=seven", "trainer.max_epochs=1"), Path("seven"))
    record = read_record(Path("seven"))
    assert record is not None
    assert record["weights"]["drawn"] == ["head.7.weight", "head.7.bias"]
    assert "2 drawn anew: head.7.weight, head.7.bias" in capsys.readouterr().out


def test_as_many_classes_of_other_names_are_other_classes(run: Path) -> None:
    net = instantiate(load_checkpoint(run).classifier.hparams["model"], num_classes=6, in_channels=1, input_size=48)
    assert load_into(net, str(run), 48, 1, ("a", "b", "c", "d", "e", "f")).drawn == ["head.7.weight", "head.7.bias"]


def test_a_resumed_run_needs_its_weights_no_more(run: Path, small_config: Callable[..., DictConfig]) -> None:
    cfg = small_config(f"model.weights={run}", "trainer.max_epochs=1")
    train(cfg, Path("again"))
    run.rename("gone")
    cfg.resume, cfg.trainer.max_epochs = "again", 2
    train(cfg, Path("again"))
    record = read_record(Path("again"))
    assert record is not None
    assert record["weights"]["source"] == str(run)


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a download asks for: one file of one repository."""

    content = b""

    def do_HEAD(self) -> None:
        found = self.path == "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_pretrained_weights_come_from_the_hub() -> None:
    save_file(timm.create_model("test_resnet").state_dict(), "hub.safetensors")
    Hub.content = Path("hub.safetensors").read_bytes()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub:
        Thread(target=hub.serve_forever, daemon=True).start()
        here = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": "hf", "HF_HUB_DISABLE_XET": "1"}
        there = os.environ | here | {"HF_HUB_OFFLINE": "0"}
        done = subprocess.run([sys.executable, "-c", PRETRAINED], env=there, capture_output=True, text=True)
        hub.shutdown()
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "weights: timm/test_resnet.r160_in1k, from the Hugging Face Hub or its cache on this machine"
    tensors = len(timm.create_model("test_resnet", num_classes=0).state_dict())
    assert said[1] == f"weights: timm/test_resnet.r160_in1k: {tensors} tensors loaded"
    assert said[-1] == "True"


PRETRAINED = """
from safetensors.torch import load_file
from emotion.models.timm_backbone import TimmBackbone
from emotion.training.pretrained import load_into

net = TimmBackbone(2, 3, 64, "test_resnet")
print(load_into(net, "pretrained", 64, 3, ("one", "two")))
given, own = load_file("hub.safetensors"), net.backbone.state_dict()
print(all(own[name].equal(given[name]) for name in own))
"""


def test_pretrained_weights_that_cannot_be_had_name_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(Path("empty").absolute()))
    with pytest.raises(UserError, match=r"connect this machine .* or give weights that lie here: model.weights=FILE"):
        fill(TimmBackbone(2, 3, 64, "resnet10t"), "pretrained")


def test_nobody_publishes_weights_of_our_own_systems(small_config: Callable[..., DictConfig]) -> None:
    with pytest.raises(UserError, match="nobody publishes weights of V4Attention"):
        train(small_config("model.weights=pretrained"), RUN)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "weights.ckpt"])
def test_a_damaged_file_is_refused(name: str) -> None:
    Path(name).write_bytes(b"\x80\x02nothing of the kind")
    with pytest.raises(UserError, match=f"{name} cannot be read as"):
        fill(TimmBackbone(2, 3, 64, "resnet10t"), name)


def test_a_file_that_would_run_code_is_refused_unopened() -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path("sprung"),)  # type: ignore[return-value]

    torch.save({"model": Trap()}, "trap.pth")
    with pytest.raises(UserError, match="cannot be read as weights"):
        fill(TimmBackbone(2, 3, 64, "resnet10t"), "trap.pth")
    assert not Path("sprung").exists()


def test_weights_of_another_network_are_refused_naming_both() -> None:
    torch.save(timm.create_model("convnext_atto").state_dict(), "other.pth")
    with pytest.raises(
        UserError, match=r"fits 0 % of TimmBackbone before its head.*: it has .*stem.*; the network has .*conv1"
    ):
        fill(TimmBackbone(2, 3, 64, "resnet10t"), "other.pth")


@pytest.mark.parametrize("missing", ["nowhere", "nowhere.pth"])
def test_a_source_that_is_not_there_is_refused(missing: str) -> None:
    with pytest.raises(
        UserError, match=f"model.weights={missing}: {missing} is not there; give a run folder.* Or pretrained"
    ):
        fill(TimmBackbone(2, 3, 64, "resnet10t"), missing)


def test_weights_that_leave_most_of_a_network_drawn_are_refused() -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), "small.pth")
    with pytest.raises(UserError, match=r"fits \d+ % of TimmBackbone before its head, expected at least 50 %"):
        fill(TimmBackbone(2, 3, 64, "resnet18"), "small.pth")


def test_places_without_one_for_the_class_token_are_laid_out_anew_as_well() -> None:
    torch.save(timm.create_model("deit3_small_patch16_224").state_dict(), "deit3.pth")
    net = TimmBackbone(2, 3, 64, "deit3_small_patch16_224")
    loaded = load_into(net, "deit3.pth", 64, 3, CLASSES)
    assert loaded.resized == ["features.backbone.pos_embed 1x196x384 to 1x16x384"]


@pytest.mark.parametrize("settings", [{}, {"classes": ["a"]}])
def test_a_checkpoint_of_another_trainer_is_read_by_its_names(settings: dict[str, object]) -> None:
    state = timm.create_model("resnet10t").state_dict()
    torch.save({"hyper_parameters": settings, "model": state}, "foreign.ckpt")
    assert len(load_into(TimmBackbone(2, 3, 64, "resnet10t"), "foreign.ckpt", 64, 3, CLASSES).skipped) == 2


def test_weights_that_timm_cannot_convert_are_refused() -> None:
    torch.save({name: value for name, value in timm.create_model("resnet10t").state_dict().items()}, "resnet.pth")
    with pytest.raises(UserError, match=r"not of convnext_atto|fits 0 %"):
        fill(TimmBackbone(2, 3, 64, "convnext_atto"), "resnet.pth")
