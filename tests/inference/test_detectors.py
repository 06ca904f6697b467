"""Detectors and the crop: where the faces of an image are, and what of it reaches the network."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from omegaconf import OmegaConf
from onnx import TensorProto, helper, numpy_helper

import emotion
from emotion.config.compose import CONF
from emotion.data.crop import Box, crop
from emotion.data.transforms.corruptions import REGIONS
from emotion.errors import UserError
from emotion.inference.detectors import CASCADE, EYES, MOUTH, FullImage, Haar, YuNet, box_from_landmarks, largest_first
from tests.conftest import options
from tests.images import scene

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
"""Every pixel differs, so that a crop shows its place."""


@pytest.mark.parametrize(
    ("left", "top", "side"),
    [(4, 7, 9), (0, 0, 20), (-3, 5, 8), (5, -4, 8), (25, 6, 9), (6, 15, 9), (-2, -3, 25), (3.4, 6.6, 8.6)],
)
def test_a_crop_is_the_square_of_the_image_that_continues_its_edges(left: float, top: float, side: float) -> None:
    first, start, size = round(left), round(top), round(side)
    rows, columns = np.arange(start, start + size).clip(0, 19), np.arange(first, first + size).clip(0, 29)
    face = crop(IMAGE, Box(left, top, side, 1), size, 3)
    np.testing.assert_array_equal(face, IMAGE[rows][:, columns])
    np.testing.assert_array_equal(crop(IMAGE, Box(left, top, side, 1), size, 1), cv2.cvtColor(face, cv2.COLOR_RGB2GRAY))


def test_a_larger_crop_is_averaged_and_a_smaller_one_is_interpolated() -> None:
    means = IMAGE[2:18, 4:20].reshape(8, 2, 8, 2, 3).mean((1, 3))
    assert np.abs(crop(IMAGE, Box(4, 2, 16, 1), 8, 3) - means).max() <= 1
    expected = cv2.resize(IMAGE[2:10, 4:12], (16, 16), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(crop(IMAGE, Box(4, 2, 8, 1), 16, 3), expected)
    assert (crop(IMAGE, Box(3.2, 4.3, 0.2, 1), 5, 3) == IMAGE[4, 3]).all()  # at least a pixel


@pytest.mark.parametrize(("angle", "turns"), [(90, -1), (-90, 1), (180, 2)])
def test_a_turned_crop_is_the_face_before_it_was_turned(angle: int, turns: int) -> None:
    """A face turned clockwise by 90 degrees; np.rot90 turns counterclockwise. Its place is not the image's center."""
    face = cv2.resize(IMAGE[:6, :6], (40, 40), interpolation=cv2.INTER_CUBIC)
    image = np.full((90, 120, 3), 128, np.uint8)
    image[30:70, 60:100] = np.rot90(face, turns)
    upright = crop(image, Box(60, 30, 40, 0.5, angle), 40, 3)
    assert np.abs(upright.astype(int) - face).max() <= 1


def test_the_whole_image_is_its_central_square() -> None:
    assert FullImage()(IMAGE) == [Box(5, 0, 20, 1)]
    assert FullImage()(IMAGE.transpose(1, 0, 2)) == [Box(0, 5, 20, 1)]


def test_the_corners_of_a_box() -> None:
    assert Box(10, 20, 5, 1).xyxy == (10, 20, 15, 25)


def test_boxes_are_sorted_by_size() -> None:
    boxes = [Box(0, 0, side, 1 / side) for side in (20, 50, 30)]
    assert [box.side for box in largest_first(boxes)] == [50, 30, 20]


@pytest.mark.parametrize("max_side", [960, 480])
def test_haars_square_is_97_percent_of_the_crop_and_a_hundredth_above_it(max_side: int) -> None:
    image, factor = scene((50, 100, 240)), min(1, max_side / 640)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if factor < 1:
        gray = cv2.resize(gray, (480, 360), interpolation=cv2.INTER_AREA)
    cascade = cv2.CascadeClassifier(str(CASCADE))
    ((left, top, side, _),) = cascade.detectMultiScale(gray, 1.1, 4, minSize=(26, 26)) / factor

    (box,) = Haar(max_side=max_side)(image)
    assert box.side == pytest.approx(side / 0.97)
    assert box.left + box.side / 2 == pytest.approx(left + side / 2)
    assert box.top + box.side / 2 == pytest.approx(top + side / 2 + 0.01 * box.side)


def test_haar_finds_faces_from_a_share_of_the_longer_side() -> None:
    image = scene((50, 100, 240))  # of 640
    assert len(Haar(min_face=0.3)(image)) == 1
    assert Haar(min_face=0.45)(image) == []
    assert Haar(min_neighbors=1000)(image) == []


def test_the_square_of_landmarks_by_hand() -> None:
    """Eyes 38 apart: a side of 100; the mouth 82 below them: a side of 200. Their mean, about the middle of both."""
    landmarks = np.array([[181, 300], [219, 300], [0, 0], [188, 382], [212, 382]], float)
    left, top, side, score, angle = box_from_landmarks(landmarks, 0.25)
    assert (side, score, angle) == (pytest.approx(150), 0.25, 0)
    assert (left, top) == pytest.approx((200 - 0.495 * 150, 341 - 0.585 * 150))
    assert box_from_landmarks(np.zeros((5, 2)), 1).side == 1


def test_haar_finds_faces_in_pixels_of_the_image() -> None:
    first, second = Haar()(scene((50, 100, 240), (400, 200, 160)))
    assert [first.left, first.top, first.side] == pytest.approx([50, 100, 240], abs=40)
    assert [second.left, second.top, second.side] == pytest.approx([400, 200, 160], abs=30)
    (shrunk,) = Haar(max_side=480)(scene((100, 100, 300), width=960, height=720))
    assert [shrunk.left, shrunk.top, shrunk.side] == pytest.approx([100, 100, 300], abs=50)


def test_haar_rejects_invalid_settings() -> None:
    with pytest.raises(UserError, match="min_face=2 min_neighbors=4; expected"):
        Haar(min_face=2)


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


@pytest.mark.parametrize("factor", [1, 2])
def test_yunet_returns_the_crop_of_fer2013(factor: int, tmp_path: Path) -> None:
    """Also of an image that is shrunk to half its size first."""
    image = np.zeros((240 * factor, 320 * factor, 3), np.uint8)
    image[96 * factor : 104 * factor, 160 * factor : 168 * factor] = 255
    detector = YuNet(str(write_yunet(tmp_path / "yunet.onnx")), max_side=320)
    (box,) = detector(image)
    assert pickle.loads(pickle.dumps(detector))(image) == [box]
    assert box.score == pytest.approx(1, abs=1e-3)
    assert box.side == pytest.approx(32 * factor, abs=0.5 * factor)  # 12.2 pixels between the eyes, 0.38 of the side
    expected = (160 - 0.495 * 32) * factor, (96 - 0.5 * 32) * factor
    assert (box.left, box.top) == pytest.approx(expected, abs=0.7 * factor)


def test_a_yunet_file_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_yunet(tmp_path / "yunet.onnx")
    assert isinstance(emotion.load(detector="~/yunet.onnx").detector, YuNet)


def test_a_missing_or_invalid_yunet_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing.onnx does not exist; expected face_detection_yunet_2023mar.onnx"):
        YuNet("nothing.onnx")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"x.onnx cannot be read by OpenCV"):
        YuNet(str(tmp_path / "x.onnx"))


@pytest.mark.parametrize("name", options("detector"))
def test_load_takes_every_config(name: str) -> None:
    config = OmegaConf.load(CONF / f"detector/{name}.yaml")
    if settings := OmegaConf.missing_keys(config):
        with pytest.raises(UserError, match=rf"detector={name} needs {settings.pop()}=.*{config._target_}\("):
            emotion.load(detector=name)
    else:
        detector = emotion.load(detector=name).detector
        assert f"{type(detector).__module__}.{type(detector).__name__}" == config._target_


def test_load_takes_a_detector() -> None:
    detector = Haar(min_face=0.5)
    assert emotion.load(detector=detector).detector is detector


def test_an_unknown_detector_is_answered_with_the_list() -> None:
    expected = rf"detector=har: expected one of {', '.join(options('detector'))}, the \.onnx file"
    with pytest.raises(UserError, match=expected):
        emotion.load(detector="har")
