from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import emotion
from emotion.checkpoints.ensemble import load_ensemble
from emotion.data.transforms.corruptions import REGIONS
from emotion.errors import UserError
from emotion.inference.detectors import EYES, MOUTH, Box, FullImage, Haar, YuNet, box_from_landmarks, crop
from emotion.inference.predictor import Predictor
from emotion.inference.torch_backend import TorchBackend
from tests.images import FACES, scene


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    """A small V4 on six classes."""
    return small_run(Path("run"), "trainer.max_epochs=1")


def test_haar_finds_faces_in_pixels_of_the_image() -> None:
    first, second = Haar()(scene((50, 100, 240), (400, 200, 160)))
    assert [first.left, first.top, first.side] == pytest.approx([50, 100, 240], abs=40)
    assert [second.left, second.top, second.side] == pytest.approx([400, 200, 160], abs=30)
    (shrunk,) = Haar(max_side=480)(scene((100, 100, 300), width=960, height=720))
    assert [shrunk.left, shrunk.top, shrunk.side] == pytest.approx([100, 100, 300], abs=50)


def test_haar_rejects_invalid_settings() -> None:
    with pytest.raises(UserError, match="min_face=2 min_neighbors=4; expected"):
        Haar(min_face=2)


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


def test_a_crop_beyond_the_edge_replicates_it() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    image[:, 5:] = 200
    face = crop(image, Box(5, -5, 10, 1), 10, 1)
    assert face.shape == (10, 10)
    assert (face == 200).all()


def test_landmarks_as_in_fer2013_give_its_crop() -> None:
    eye, corner = np.array([0.19, 0]), np.array([0.1, 0])
    landmarks = np.stack([EYES - eye, EYES + eye, (EYES + MOUTH) / 2, MOUTH - corner, MOUTH + corner])
    box = box_from_landmarks(100 + 80 * landmarks, 0.9)
    assert list(box[:4]) == pytest.approx([100, 100, 80, 0.9], abs=0.05)  # the mouth is not exactly below the eyes


def test_eyes_and_mouth_are_the_centers_of_their_regions() -> None:
    for name, center in (("eyes", EYES), ("mouth", MOUTH)):
        top, left, bottom, right = REGIONS[name]
        assert center == pytest.approx([(left + right) / 2, (top + bottom) / 2], abs=0.01)


def write_yunet(path: Path) -> Path:
    """A model with YuNet's interface: the score is the brightness of 8 by 8 pixels, the face there 32 pixels wide."""
    scores = {"cls": [1 / 765], "obj": [1 / 765]}  # of three channels from 0 to 255
    landmarks = [-0.76, -0.48, 0.76, -0.48, 0, 0.34, -0.4, 1.16, 0.4, 1.16]  # from there, in strides
    offsets = {"bbox": [0.0, 0, np.log(4), np.log(4)], "kps": landmarks}
    nodes, tensors, outputs = [], [numpy_helper.from_array(np.array([1, -1, 0]), "flat")], []
    for stride in (8, 16, 32):
        pool = {"kernel_shape": [stride] * 2, "strides": [stride] * 2}
        nodes.append(helper.make_node("AveragePool", ["input"], [f"mean{stride}"], **pool))
        for kind, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            name = f"{kind}_{stride}"
            weights = np.full((width, 3, 1, 1), scores.get(kind, [0])[0] * (stride == 8), np.float32)
            bias = np.array(offsets.get(kind, [0] * width), np.float32)
            for part, values in (("w", weights), ("b", bias), ("shape", np.array([1, -1, width]))):
                tensors.append(numpy_helper.from_array(values, f"{part}_{name}"))
            nodes += [
                helper.make_node("Conv", [f"mean{stride}", f"w_{name}", f"b_{name}"], [f"maps_{name}"]),
                helper.make_node("Transpose", [f"maps_{name}"], [f"last_{name}"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"last_{name}", f"shape_{name}"], [name]),
            ]
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, width]))
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 640, 640])
    graph = helper.make_graph(nodes, "yunet", [image], outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_yunet_returns_the_crop_of_fer2013(tmp_path: Path) -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    image[96:104, 160:168] = 255
    (box,) = YuNet(str(write_yunet(tmp_path / "yunet.onnx")))(image)
    assert box.score == pytest.approx(1, abs=1e-3)
    assert box.side == pytest.approx(32, abs=0.5)  # 12.2 pixels between the eyes, 0.38 of the side
    assert (box.left, box.top) == pytest.approx((160 - 0.495 * 32, 96 - 0.5 * 32), abs=0.7)


def test_a_missing_or_invalid_yunet_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing.onnx does not exist; expected face_detection_yunet_2023mar.onnx"):
        YuNet("nothing.onnx")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"x.onnx cannot be read by OpenCV"):
        YuNet(str(tmp_path / "x.onnx"))


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
