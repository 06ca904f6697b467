"""ONNX files compared with PyTorch; all networks of conf/model with `make test-all`."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emotion.checkpoints.ensemble import Ensemble, load_ensemble
from emotion.checkpoints.load import LoadedCheckpoint
from emotion.checkpoints.locate import ONNX_SUFFIX, PORTABLE_SUFFIX, zoo
from emotion.classifier import EmotionClassifier
from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.explainers.gradcam import GradCam
from emotion.exporting.onnx import export_onnx, synthetic_faces, torch_probabilities
from emotion.exporting.zoo import share_weights
from emotion.inference.onnx_backend import FACES, MAP, PROBABILITIES, OnnxBackend
from emotion.records.run_record import RunRecord
from tests.conftest import BACKBONES, ROOT, SYSTEMS, representative
from tests.models.test_models import recipe

FILE = Path("net.onnx")
SHALLOW = {  # every kind of layer remains
    "v4_attention": {"convs": [1, 2, 1, 1]},
    "v2_se": {"convs": [1, 2, 1, 1]},
    "v1_cnn": {"convs": [1, 2, 1]},
    "resnet_cbam": {"blocks": 1},
}


def make_member(
    model: str, seed: int = 0, side: int = 48, channels: int = 1, fitted: bool = True, **changed: object
) -> LoadedCheckpoint:
    """A network of conf/model with random weights and, if `fitted`, statistics of batch normalization."""
    cfg = compose("train", f"model={model}", "run_dir=x")
    torch.manual_seed(seed)
    classifier = EmotionClassifier(
        model=recipe(model)[0] | SHALLOW.get(model, {}),
        input=dict(cfg.input) | changed,
        classes=["one", "two", "three", "four", "five"],
        class_counts=[1.0] * 5,
        loss=dict(cfg.loss),
        optimizer=dict(cfg.optimizer),
        scheduler={},
    )
    source = {"_target_": "emotion.data.readers.path_list.read", "size": side, "channels": channels}
    member = LoadedCheckpoint(Path("nowhere"), classifier.eval(), {"source": source}, {}, 0)
    if not fitted:
        return member
    for layer in classifier.net.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = None  # use the statistics of these faces alone
    faces = torch.from_numpy(synthetic_faces(side, channels))
    with torch.no_grad():
        classifier.net.train()(classifier.preprocess(faces))
    classifier.eval()
    (logits,) = classifier.logits(faces)["none"]
    classifier.temperature = float(logits.std(0).mean())  # so that predictions depend on the face
    return member


def check_grad_cam(ensemble: Ensemble, backend: OnnxBackend, faces: NDArray[np.uint8]) -> None:
    """Compare the file's maps with Grad-CAM of the predicted class, up to scale; 0 outside the network's view."""
    (classifier,) = ensemble.members
    preprocess = classifier.preprocess
    edge = (preprocess.zoomed_size - preprocess.size) // 2
    targets = torch.from_numpy(torch_probabilities(ensemble, faces).argmax(1))
    expected = GradCam("features")(classifier, preprocess(torch.from_numpy(faces)), targets).numpy()
    for actual, cam in zip(backend.session.run([MAP], {FACES: faces})[0], expected, strict=True):
        inside = actual[edge:-edge, edge:-edge] if edge else actual
        assert np.count_nonzero(inside) == np.count_nonzero(actual)
        large = cv2.resize(inside, cam.shape)
        np.testing.assert_allclose((large - large.min()) / max(np.ptp(large), 1e-9), cam, atol=1e-3)


def remove_repeated_blocks(backbone: nn.Module) -> None:
    """Keep the first of equal blocks in a row, since exporting each takes seconds."""
    for row in [part for part in backbone.modules() if isinstance(part, nn.Sequential)]:
        seen = set()
        for name, block in list(row.named_children()):
            kind = (type(block), tuple(value.shape for value in block.state_dict().values()))
            if len(list(block.children())) > 1 and kind in seen:
                row._modules.pop(name)
            seen.add(kind)


@pytest.mark.parametrize("model", representative(SYSTEMS, "attention_cnn"))
def test_probabilities_and_maps_match_for_any_batch_size(model: str) -> None:
    ensemble = Ensemble([make_member(model)])
    parity, _ = export_onnx(ensemble, FILE, cam=True)
    assert (parity.faces, parity.agreement) == (14, 1.0)
    backend, faces = OnnxBackend(FILE), synthetic_faces(48, 1, 19)[14:]
    described = [*backend.session.get_inputs(), *backend.session.get_outputs()]
    assert {value.name: value.shape[0] for value in described} == dict.fromkeys((FACES, PROBABILITIES, MAP), "batch")
    expected = torch_probabilities(ensemble, faces)
    assert np.ptp(expected, axis=0).max() > 1e-3, "predictions do not depend on the face"
    np.testing.assert_allclose(backend.probabilities(faces), expected, atol=1e-5)
    np.testing.assert_allclose(backend.probabilities(faces[:1]), expected[:1], atol=1e-5)
    check_grad_cam(ensemble, backend, faces)


@pytest.mark.parametrize("model", representative(BACKBONES, "resnet18"))
def test_probabilities_of_a_backbone_match(model: str) -> None:
    ensemble, faces = Ensemble([make_member(model, fitted=False)]), synthetic_faces(48, 1, 2)
    remove_repeated_blocks(ensemble.members[0].net.backbone)
    export_onnx(ensemble, FILE, faces=faces)
    expected = torch_probabilities(ensemble, faces[:1])
    np.testing.assert_allclose(OnnxBackend(FILE).probabilities(faces[:1]), expected, atol=1e-5)


# their heads contain normalization and convolution
@pytest.mark.parametrize("backbone", representative(("test_convnext", "mobilenetv3_small_050"), "test_convnext"))
def test_maps_of_a_backbone_match(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHALLOW, "resnet18", {"backbone": backbone})
    ensemble, faces = Ensemble([make_member("resnet18", fitted=False, zoom=1.0)]), synthetic_faces(48, 1, 2)
    remove_repeated_blocks(ensemble.members[0].net.backbone)
    export_onnx(ensemble, FILE, cam=True, faces=faces)
    check_grad_cam(ensemble, OnnxBackend(FILE), faces)


def test_ensemble_with_different_inputs_and_tta_is_one_file() -> None:
    """Color faces larger than either input: resized, and converted to gray for one of them."""
    ensemble = Ensemble([make_member("simple_cnn", 0, 80, 3), make_member("compact_cnn", 1, 80, 3)])
    export_onnx(ensemble, FILE, "flip", cam=True)
    backend, faces = OnnxBackend(FILE, "flip"), synthetic_faces(80, 3, 5)
    assert (backend.side, backend.channels) == faces.shape[2:]
    expected = torch_probabilities(ensemble, faces, "flip")
    np.testing.assert_allclose(backend.probabilities(faces), expected, atol=1e-4)
    assert np.abs(expected - torch_probabilities(ensemble, faces)).max() > 1e-3, "TTA does not matter to this network"
    maps = backend.maps(faces)
    assert maps.shape == (5, 80, 80)
    assert 0.5 <= maps.max() <= 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("tta", ["shifted", "ten_crop"])
def test_many_views_match(tta: str) -> None:
    ensemble, faces = Ensemble([make_member("simple_cnn", zoom=1.2)]), synthetic_faces(48, 1, 3)
    export_onnx(ensemble, FILE, tta)
    expected = torch_probabilities(ensemble, faces, tta)
    np.testing.assert_allclose(OnnxBackend(FILE, tta).probabilities(faces), expected, atol=1e-5)


@pytest.mark.exhaustive
def test_the_packages_onnx_files_are_those_of_its_weights() -> None:
    """Their command, in a folder of its own, gives the same bytes."""
    for name, path in zoo(ONNX_SUFFIX).items():
        for suffix in (".json", PORTABLE_SUFFIX):
            Path(f"{name}{suffix}").write_bytes(path.with_suffix(suffix).read_bytes())
        export_onnx(load_ensemble(name), Path(f"{name}{ONNX_SUFFIX}"), cam=True, half=True)
        assert share_weights(Path(f"{name}{ONNX_SUFFIX}")) == path.read_bytes()


def test_map_of_a_center_crop_is_blank_around_it() -> None:
    export_onnx(Ensemble([make_member("simple_cnn", zoom=2.0)]), FILE, cam=True)
    (cam,) = OnnxBackend(FILE).maps(synthetic_faces(48, 1, 1))
    assert cam.shape == (48, 48)
    assert cam[14:34, 14:34].max() > 0
    cam[11:37, 11:37] = 0
    assert cam.max() == 0


def test_metadata_describes_the_classifier_and_contains_no_local_path(tmp_path: Path) -> None:
    member, folder = make_member("compact_cnn"), tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    RunRecord(command="train", data={"source": str(tmp_path / "fer2013.csv")}).write(folder)
    export_onnx(Ensemble([member._replace(path=folder / "checkpoints/best.ckpt")]), FILE)
    content = FILE.read_bytes()
    model = onnx.load_from_string(content)
    assert json.loads({prop.key: prop.value for prop in model.metadata_props}["emotion"]) == {
        "format": "emotion onnx 1",
        "name": "CompactCNN",
        "classes": ["one", "two", "three", "four", "five"],
        "side": 48,
        "channels": 1,
        "tta": "none",
        "checkpoint": "best.ckpt",
        "epoch": 1,
        "temperature": member.classifier.temperature,
        "synthetic": False,
        "record": {"command": "train", "data": {"source": "fer2013.csv"}, "first_epoch": 1},
    }
    assert [text for text in (str(tmp_path), str(ROOT), ".py") if text.encode() in content] == []
    assert {opset.domain for opset in model.opset_import} == {""}


def test_next_opset_is_tried_and_the_failure_printed(capsys: pytest.CaptureFixture[str]) -> None:
    _, opset = export_onnx(Ensemble([make_member("compact_cnn")]), FILE, opsets=(10, 18))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("opset 10: ")
    assert opset == onnx.load(FILE).opset_import[0].version == 18


class CallCounter(nn.Module):
    """Returns different logits at every call, which an exported file cannot."""

    calls = 0

    def forward(self, logits: Tensor) -> Tensor:
        self.calls += 1
        return logits * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]) ** self.calls


def test_file_that_does_not_match_is_not_written() -> None:
    ensemble = Ensemble([make_member("compact_cnn")])
    ensemble.members[0].net.head.append(CallCounter())
    message = r"nothing is written: opset 18: a probability differs from PyTorch's by .*target=weights"
    with pytest.raises(UserError, match=message):
        export_onnx(ensemble, FILE, opsets=(18,))
    assert list(Path().iterdir()) == []
