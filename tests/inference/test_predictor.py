from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import emotion
from emotion.checkpoints.ensemble import load_ensemble
from emotion.errors import UserError
from emotion.inference.detectors import FullImage, Haar
from emotion.inference.predictor import Predictor
from emotion.inference.torch_backend import TorchBackend
from tests.images import FACES, scene


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    """A small V4 on six classes."""
    return small_run(Path("run"), "trainer.max_epochs=1")


def test_a_cropped_face_reaches_the_network_unchanged(run: Path) -> None:
    faces = Predictor(TorchBackend(run), FullImage()).predict(list(FACES))
    expected = load_ensemble(run).probabilities(torch.from_numpy(FACES)).numpy()
    assert [np.array_equal(face.pixels, pixels) for (face,), pixels in zip(faces, FACES, strict=True)] == [True] * 6
    np.testing.assert_allclose([face.probs for (face,) in faces], expected, atol=1e-6)


def test_results_do_not_depend_on_the_batch_size(run: Path) -> None:
    images = [scene((50, 100, 240), (400, 200, 160)), scene(), scene((200, 100, 200))]
    single, batched = (Predictor(TorchBackend(run), Haar(), size).predict(images) for size in (1, 64))
    assert [len(faces) for faces in batched] == [2, 0, 1]
    for faces, others in zip(single, batched, strict=True):
        for face, other in zip(faces, others, strict=True):
            assert face.box == other.box
            np.testing.assert_allclose(face.probs, other.probs, atol=1e-6)


def test_a_face_has_label_probabilities_and_a_short_repr(run: Path) -> None:
    predictor = emotion.load(run)
    (face,) = predictor.predict(scene((200, 100, 200)))
    assert face.label == max(face.probabilities, key=face.probabilities.__getitem__)
    assert face.probabilities[face.label] == face.probability
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert all(isinstance(value, float) for value in (*face.box, face.probability))
    assert repr(face).startswith(f"Face({face.label} {face.probability:.0%}, left=")
    assert "classes=happiness, surprise" in repr(predictor)


def test_flip_averages_a_face_and_its_mirror_image(run: Path) -> None:
    face = FACES[0]
    plain, flip = (TorchBackend(run, tta).probabilities for tta in ("none", "flip"))
    mean = (plain(face[None]) + plain(face[None, :, ::-1].copy())) / 2
    np.testing.assert_allclose(flip(face[None]), mean, atol=1e-6)


def test_load_takes_included_weights() -> None:
    (face,) = emotion.load().predict(scene((200, 100, 200)))
    assert set(face.probabilities) == {"angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"}


@pytest.mark.parametrize(
    ("checkpoint", "tta", "message"),
    [
        ("nothing", "none", r"nothing does not exist; expected a run folder .* \(attention_cnn"),
        ("fast_cnn", "many", "tta=many: expected one of none, flip, ten_crop"),
        (["fast_cnn", "a.onnx"], "none", "an ensemble cannot contain .onnx files"),
    ],
)
def test_load_rejects_invalid_arguments(checkpoint: object, tta: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        emotion.load(checkpoint, tta=tta)  # type: ignore[arg-type]
