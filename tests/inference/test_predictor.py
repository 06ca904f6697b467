from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import emotion
from emotion.checkpoints import ensemble
from emotion.data.transforms.corruptions import REGIONS
from emotion.errors import UserError
from emotion.inference.detectors import EYES, MOUTH, Box, Haar, Whole, YuNet, crop, crop_of
from emotion.inference.predictor import Predictor
from emotion.inference.torch_backend import TorchJudge
from tests.pictures import FOUND, scene


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    """Of the small V4 on six classes."""
    return small_run(Path("run"), "trainer.max_epochs=1")


def test_faces_are_found_where_they_are() -> None:
    first, second = Haar()(scene((50, 100, 240), (400, 200, 160)))
    assert [first.left, first.top, first.side] == pytest.approx([50, 100, 240], abs=40)
    assert [second.left, second.top, second.side] == pytest.approx([400, 200, 160], abs=30)


def test_an_empty_wall_has_no_face(run: Path) -> None:
    assert Predictor(TorchJudge(run), Haar()).predict([scene(), scene()]) == [[], []]


def test_a_box_is_in_the_pixels_of_the_whole_picture() -> None:
    small = Haar(longest=480)(scene((100, 100, 300), width=960, height=720))[0]
    assert [small.left, small.top, small.side] == pytest.approx([100, 100, 300], abs=50)


def test_a_face_cropped_already_reaches_the_network_as_it_is(run: Path) -> None:
    predictor = Predictor(TorchJudge(run), Whole())
    found = predictor.predict(list(FOUND))
    expected = ensemble.load(run).probabilities(torch.from_numpy(FOUND)).numpy()
    assert [np.array_equal(face.pixels, drawn) for (face,), drawn in zip(found, FOUND, strict=True)] == [True] * 6
    np.testing.assert_allclose([face.shares for (face,) in found], expected, atol=1e-6)


def test_batches_do_not_change_what_is_found(run: Path) -> None:
    pictures = [scene((50, 100, 240), (400, 200, 160)), scene(), scene((200, 100, 200))]
    one, many = (Predictor(TorchJudge(run), Haar(), size).predict(pictures) for size in (1, 64))
    assert [len(found) for found in many] == [2, 0, 1]
    for some, others in zip(one, many, strict=True):
        for face, other in zip(some, others, strict=True):
            assert face.box == other.box
            np.testing.assert_allclose(face.shares, other.shares, atol=1e-6)


def test_a_face_says_what_it_shows(run: Path) -> None:
    (face,) = emotion.load(run).predict(scene((200, 100, 200)))
    assert face.label == max(face.probabilities, key=face.probabilities.__getitem__)
    assert face.probabilities[face.label] == face.probability
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert [type(value) for value in (*face.box, face.probability)] == [float] * 5


def test_flip_views_average_a_face_and_its_mirror_image(run: Path) -> None:
    face = FOUND[0]
    tta = {name: TorchJudge(run, name) for name in ("none", "flip")}
    mean = (tta["none"].probabilities(face[None]) + tta["none"].probabilities(face[None, :, ::-1].copy())) / 2
    np.testing.assert_allclose(tta["flip"].probabilities(face[None]), mean, atol=1e-6)


def test_a_crop_over_the_edge_has_the_edge_drawn_out() -> None:
    picture = np.zeros((10, 10, 3), np.uint8)
    picture[:, 5:] = 200
    found = crop(picture, Box(5, -5, 10, 1), 10, 1)
    assert found.shape == (10, 10)
    assert (found == 200).all()


def test_landmarks_that_lie_as_in_fer2013_are_cropped_as_they_are() -> None:
    aside, corner = np.array([0.19, 0]), np.array([0.1, 0])
    places = np.stack([EYES - aside, EYES + aside, (EYES + MOUTH) / 2, MOUTH - corner, MOUTH + corner])
    box = crop_of(100 + 80 * places, 0.9)
    assert list(box) == pytest.approx([100, 100, 80, 0.9], abs=0.05)  # a mouth is not right below


def test_eyes_and_mouth_lie_where_the_regions_of_a_face_have_them() -> None:
    for name, place in (("eyes", EYES), ("mouth", MOUTH)):
        top, left, bottom, right = REGIONS[name]
        assert place == pytest.approx([(left + right) / 2, (top + bottom) / 2], abs=0.01)


def yunet(path: Path) -> Path:
    """A file of YuNet's form whose score is the brightness of 8 by 8 pixels; the face stands there, 32 pixels wide."""
    scores = {"cls": [1 / 765], "obj": [1 / 765]}  # of three channels from 0 to 255
    eyes_nose_mouth = [-0.76, -0.48, 0.76, -0.48, 0, 0.34, -0.4, 1.16, 0.4, 1.16]  # from there, in strides
    offsets = {"bbox": [0.0, 0, np.log(4), np.log(4)], "kps": eyes_nose_mouth}
    nodes, tensors, outputs = [], [numpy_helper.from_array(np.array([1, -1, 0]), "flat")], []
    for stride in (8, 16, 32):
        pool = {"kernel_shape": [stride] * 2, "strides": [stride] * 2}
        nodes.append(helper.make_node("AveragePool", ["input"], [f"mean{stride}"], **pool))
        for name, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            own = f"{name}_{stride}"
            per_channel = np.full((width, 3, 1, 1), scores.get(name, [0])[0] * (stride == 8), np.float32)
            bias = np.array(offsets.get(name, [0] * width), np.float32)
            shape = np.array([1, -1, width])
            for part, values in (("w", per_channel), ("b", bias), ("shape", shape)):
                tensors.append(numpy_helper.from_array(values, f"{part}_{own}"))
            nodes += [
                helper.make_node("Conv", [f"mean{stride}", f"w_{own}", f"b_{own}"], [f"maps_{own}"]),
                helper.make_node("Transpose", [f"maps_{own}"], [f"last_{own}"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"last_{own}", f"shape_{own}"], [own]),
            ]
            outputs.append(helper.make_tensor_value_info(own, TensorProto.FLOAT, [1, None, width]))
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 640, 640])
    graph = helper.make_graph(nodes, "yunet", [picture], outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_yunet_s_landmarks_become_the_crop_of_fer2013(tmp_path: Path) -> None:
    picture = np.zeros((240, 320, 3), np.uint8)
    picture[96:104, 160:168] = 255
    (found,) = YuNet(str(yunet(tmp_path / "yunet.onnx")))(picture)
    assert found.score == pytest.approx(1, abs=1e-3)
    assert found.side == pytest.approx(32, abs=0.5)  # 12.2 pixels between the eyes, 0.38 of the side
    assert (found.left, found.top) == pytest.approx((160 - 0.495 * 32, 96 - 0.5 * 32), abs=0.7)


def test_a_missing_or_wrong_file_of_yunet_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing.onnx is not there; expected face_detection_yunet_2023mar.onnx"):
        YuNet("nothing.onnx")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"x.onnx cannot be read by OpenCV"):
        YuNet(str(tmp_path / "x.onnx"))


def test_load_takes_what_comes_with_the_package() -> None:
    (face,) = emotion.load().predict(scene((200, 100, 200)))
    assert set(face.probabilities) == {"angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"}


def test_an_unknown_checkpoint_lists_what_there_is() -> None:
    with pytest.raises(UserError, match=r"nothing is not there; give a run folder .* \(attention_cnn"):
        emotion.load("nothing")


def test_unknown_views_are_refused(run: Path) -> None:
    with pytest.raises(UserError, match="tta=many: expected one of none, flip, ten_crop"):
        emotion.load(run, tta="many")
