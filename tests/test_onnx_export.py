"""Files of ONNX against torch, for every network of conf/model."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from emotion.checkpoints import Loaded
from emotion.classifier import EmotionClassifier
from emotion.cli import compose
from emotion.ensemble import Ensemble
from emotion.errors import UserError
from emotion.explainers.gradcam import GradCam
from emotion.inference.onnx_judge import OnnxJudge
from emotion.onnx_export import drawn, export_onnx
from tests.conftest import BACKBONES, SYSTEMS
from tests.models.test_models import recipe

FILE = Path("net.onnx")
SHALLOW = {  # every kind of layer is still there
    "v4_attention": {"convs": [1, 2, 1, 1]},
    "v2_se": {"convs": [1, 2, 1, 1]},
    "v1_cnn": {"convs": [1, 2, 1]},
    "resnet_cbam": {"blocks": 1},
}


def member(model: str, seed: int = 0, side: int = 48, channels: int = 1, **changed: object) -> Loaded:
    """A network of conf/model with its own input, its weights drawn and its normalisation fitted to drawn faces."""
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
    for layer in classifier.net.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = None  # what it has seen, not what it began with
    faces = torch.from_numpy(drawn(side, channels))
    with torch.no_grad():
        classifier.net.train()(classifier.preprocess(faces))
    classifier.eval()
    classifier.temperature = float(classifier.logits(faces)[0].std(0).mean())  # so that faces matter
    source = {"_target_": "emotion.data.path_list.read", "size": side, "channels": channels}
    return Loaded(Path("nowhere"), classifier, {"source": source}, "", 0)


def ensemble_of(*models: str) -> Ensemble:
    return Ensemble([member(model, seed) for seed, model in enumerate(models)])


def torch_says(ensemble: Ensemble, faces: NDArray[np.uint8], views: str = "none") -> NDArray[np.float32]:
    return ensemble.probabilities(torch.from_numpy(faces), views).numpy()


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
    (classifier,) = ensemble.members
    taken = classifier.preprocess(torch.from_numpy(faces))
    cam = GradCam("features")(classifier, taken, torch.from_numpy(expected.argmax(1))).numpy()
    for found, theirs in zip(judge.maps(faces), cam, strict=True):
        large = cv2.resize(found, theirs.shape)
        np.testing.assert_allclose((large - large.min()) / max(np.ptp(large), 1e-9), theirs, atol=1e-3)
