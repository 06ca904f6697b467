"""Files of ONNX against torch, for every network of conf/model."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emotion.checkpoints.ensemble import Ensemble
from emotion.checkpoints.load import Loaded
from emotion.classifier import EmotionClassifier
from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.explainers.gradcam import GradCam
from emotion.exporting.onnx import drawn, export_onnx
from emotion.inference.onnx_backend import OnnxJudge
from emotion.records.run_record import write_record
from tests.conftest import BACKBONES, ROOT, SYSTEMS
from tests.models.test_models import recipe

FILE = Path("net.onnx")
SHALLOW = {  # every kind of layer is still there
    "v4_attention": {"convs": [1, 2, 1, 1]},
    "v2_se": {"convs": [1, 2, 1, 1]},
    "v1_cnn": {"convs": [1, 2, 1]},
    "resnet_cbam": {"blocks": 1},
}


def member(
    model: str, seed: int = 0, side: int = 48, channels: int = 1, fitted: bool = True, **changed: object
) -> Loaded:
    """A network of conf/model with its own input, its weights drawn and if `fitted` its normalisation too."""
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
    found = Loaded(Path("nowhere"), classifier.eval(), {"source": source}, "", 0)
    if not fitted:
        return found
    for layer in classifier.net.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = None  # what it has seen, not what it began with
    faces = torch.from_numpy(drawn(side, channels))
    with torch.no_grad():
        classifier.net.train()(classifier.preprocess(faces))
    classifier.eval()
    classifier.temperature = float(classifier.logits(faces)[0].std(0).mean())  # so that faces matter
    return found


def ensemble_of(*models: str) -> Ensemble:
    return Ensemble([member(model, seed) for seed, model in enumerate(models)])


def torch_says(ensemble: Ensemble, faces: NDArray[np.uint8], tta: str = "none") -> NDArray[np.float32]:
    return ensemble.probabilities(torch.from_numpy(faces), tta).numpy()


@pytest.mark.parametrize("model", SYSTEMS)
def test_a_file_says_what_torch_says_of_one_face_and_of_five_and_maps_them_as_grad_cam(model: str) -> None:
    ensemble = ensemble_of(model)
    parity = export_onnx(ensemble, FILE, cam=True)
    assert (parity.faces, parity.same) == (14, 1.0)
    judge, faces = OnnxJudge(FILE), drawn(48, 1, 19)[14:]
    expected = torch_says(ensemble, faces)
    assert np.ptp(expected, axis=0).max() > 1e-3, "faces do not matter to this network"
    np.testing.assert_allclose(judge.probabilities(faces), expected, atol=1e-5)
    np.testing.assert_allclose(judge.probabilities(faces[:1]), expected[:1], atol=1e-5)
    expect_maps_of_grad_cam(ensemble, judge, faces)


@pytest.mark.parametrize("backbone", ["convnext_atto", "mobilenetv3_small_050"])  # heads that normalise and convolve
def test_maps_of_a_backbone_are_grad_cam_s(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHALLOW, "resnet18", {"backbone": backbone})
    ensemble, faces = Ensemble([member("resnet18", fitted=False, zoom=1.0)]), drawn(48, 1, 2)
    leave_out_repetitions(ensemble.members[0].net.backbone)
    export_onnx(ensemble, FILE, cam=True, faces=faces)
    expect_maps_of_grad_cam(ensemble, OnnxJudge(FILE), faces)


def expect_maps_of_grad_cam(ensemble: Ensemble, judge: OnnxJudge, faces: NDArray[np.uint8]) -> None:
    """Of the likeliest class, up to the scale that each method has; 0 where the network does not look."""
    (classifier,) = ensemble.members
    edge = (classifier.preprocess.zoomed - classifier.preprocess.size) // 2
    taken = classifier.preprocess(torch.from_numpy(faces))
    cam = GradCam("features")(classifier, taken, torch.from_numpy(torch_says(ensemble, faces).argmax(1))).numpy()
    for found, theirs in zip(judge.maps(faces), cam, strict=True):
        seen = found[edge:-edge, edge:-edge] if edge else found
        assert np.count_nonzero(seen) == np.count_nonzero(found)
        large = cv2.resize(seen, theirs.shape)
        np.testing.assert_allclose((large - large.min()) / max(np.ptp(large), 1e-9), theirs, atol=1e-3)


def leave_out_repetitions(backbone: nn.Module) -> None:
    """Of blocks in a row that are made alike, all but the first: exporting takes seconds for each."""
    for row in [part for part in backbone.modules() if isinstance(part, nn.Sequential)]:
        seen = set()
        for name, block in list(row.named_children()):
            kind = (type(block), tuple(value.shape for value in block.state_dict().values()))
            if len(list(block.children())) > 1 and kind in seen:
                row._modules.pop(name)
            seen.add(kind)


@pytest.mark.parametrize("model", BACKBONES)
def test_a_named_backbone_s_file_says_what_torch_says(model: str) -> None:
    ensemble, faces = Ensemble([member(model, fitted=False)]), drawn(48, 1, 2)
    leave_out_repetitions(ensemble.members[0].net.backbone)
    export_onnx(ensemble, FILE, faces=faces)
    np.testing.assert_allclose(OnnxJudge(FILE).probabilities(faces[:1]), torch_says(ensemble, faces[:1]), atol=1e-5)


def test_several_networks_of_other_inputs_are_one_file_and_one_map() -> None:
    """Colour faces larger than either takes: resized, made grey for one of them."""
    ensemble = Ensemble([member("simple_cnn", 0, 80, 3), member("compact_cnn", 1, 80, 3)])
    export_onnx(ensemble, FILE, "flip", cam=True)
    judge, faces = OnnxJudge(FILE, "flip"), drawn(80, 3, 5)
    assert (judge.side, judge.channels) == faces.shape[2:]
    expected = torch_says(ensemble, faces, "flip")
    np.testing.assert_allclose(judge.probabilities(faces), expected, atol=1e-4)
    assert np.abs(expected - torch_says(ensemble, faces)).max() > 1e-3, "views do not matter to this network"
    maps = judge.maps(faces)
    assert maps.shape == (5, 24, 24)
    assert 0.5 <= maps.max() <= 1


def test_views_of_ten_crops_are_inside() -> None:
    ensemble, faces = ensemble_of("simple_cnn"), drawn(48, 1, 3)
    export_onnx(ensemble, FILE, "ten_crop")
    found = OnnxJudge(FILE, "ten_crop").probabilities(faces)
    np.testing.assert_allclose(found, torch_says(ensemble, faces, "ten_crop"), atol=1e-5)


def test_the_map_of_a_network_that_sees_the_middle_is_blank_round_it() -> None:
    export_onnx(Ensemble([member("simple_cnn", zoom=2.0)]), FILE, cam=True)
    (found,) = OnnxJudge(FILE).maps(drawn(48, 1, 1))
    assert found.shape == (48, 48)
    assert found[14:34, 14:34].max() > 0
    found[11:37, 11:37] = 0
    assert found.max() == 0


def test_a_file_tells_all_of_itself_and_no_place_on_this_machine(tmp_path: Path) -> None:
    one = member("compact_cnn")
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    write_record(folder, {"scores": 1, "data": str(tmp_path / "fer2013.csv")})
    export_onnx(Ensemble([one._replace(path=folder / "checkpoints/best.ckpt")]), FILE)
    content = FILE.read_bytes()
    model = onnx.load_from_string(content)
    told = json.loads({prop.key: prop.value for prop in model.metadata_props}["emotion"])
    assert told == {
        "format": "emotion onnx 1",
        "name": "CompactCNN",
        "classes": ["one", "two", "three", "four", "five"],
        "side": 48,
        "channels": 1,
        "tta": "none",
        "checkpoint": "best.ckpt",
        "epoch": 0,
        "temperature": one.classifier.temperature,
        "record": {"scores": 1, "data": "fer2013.csv"},
    }
    for place in (str(tmp_path), str(ROOT), ".py"):
        assert place.encode() not in content
    assert {opset.domain for opset in model.opset_import} == {""}


def test_the_next_opset_is_tried_and_the_log_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert export_onnx(ensemble_of("compact_cnn"), FILE, opsets=(10, 18)).opset == 18
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("opset 10: ")
    assert onnx.load(FILE).opset_import[0].version == 18


class Restless(nn.Module):
    """Adds what is another number each time that torch computes it and a constant in a file."""

    def forward(self, logits: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return logits * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]) ** self.calls


def test_a_file_that_says_something_else_than_torch_is_not_written() -> None:
    ensemble = ensemble_of("compact_cnn")
    ensemble.members[0].net.head.append(Restless())
    with pytest.raises(UserError, match=r"nothing is written: opset 18: probabilities differ by .*target=weights"):
        export_onnx(ensemble, FILE, opsets=(18,))
    assert list(Path().iterdir()) == []
