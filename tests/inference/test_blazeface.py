import cv2
import numpy as np
import pytest

import emotion
from emotion.data.faces import Faces
from emotion.errors import UserError
from emotion.inference.blazeface import BlazeFace
from emotion.inference.detectors import Box, crop
from tests.images import scene

FACES = (60, 50, 140), (350, 60, 120)  # left, top, side


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.asarray(scene(*FACES, width=640, height=360))


def center(box: Box) -> np.ndarray:
    return np.array([box.left + box.side / 2, box.top + box.side / 2])


def test_each_face_is_found_once_the_largest_first(image: np.ndarray) -> None:
    boxes = BlazeFace()(image)
    assert len(boxes) == len(FACES)
    for box, (left, top, side) in zip(boxes, FACES, strict=True):
        assert np.abs(center(box) - (left + side / 2, top + side / 2)).max() < 0.15 * side
        assert 0.7 < box.side / side < 1.2
        assert 0.45 <= box.score <= 1
        assert box.angle == 0


def test_an_image_without_faces_has_none() -> None:
    assert BlazeFace()(np.full((200, 300, 3), 128, np.uint8)) == []
    assert BlazeFace()(np.zeros((1, 1, 3), np.uint8)) == []


@pytest.mark.parametrize("angle", [-45, -30, 30, 45])
def test_a_turned_face_is_cropped_upright(image: np.ndarray, angle: int) -> None:
    left, top, side = FACES[0]
    about = left + side / 2, top + side / 2
    matrix = cv2.getRotationMatrix2D(about, -angle, 1.0)  # OpenCV turns counterclockwise
    turned = cv2.warpAffine(image, matrix, (640, 360), borderMode=cv2.BORDER_REPLICATE)
    box = min(BlazeFace(0.3)(turned), key=lambda box: float(np.abs(center(box) - about).max()))
    assert box.angle == pytest.approx(angle, abs=8)
    upright, expected = (
        crop(pixels, one, 48, 1).astype(float) for pixels, one in ((turned, box), (image, box._replace(angle=0.0)))
    )
    assert np.corrcoef(upright.ravel(), expected.ravel())[0, 1] > 0.8


def test_a_box_scales_with_its_image_and_keeps_its_angle() -> None:
    assert Box(10, 20, 30, 0.5, 40).scaled(2) == Box(20, 40, 60, 0.5, 40)


@pytest.mark.parametrize("threshold", [0.1, 1.5])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(UserError, match=rf"threshold={threshold}: expected a number from 0.2 to 1"):
        BlazeFace(threshold)


def test_an_unknown_detector_is_answered_with_the_list() -> None:
    with pytest.raises(UserError, match=r"detector=har: expected blazeface, haar, none, or the \.onnx file"):
        emotion.load(detector="har")


@pytest.mark.fer2013
def test_most_of_fer2013_is_found_where_it_was_cropped(fer2013_faces: Faces) -> None:
    detector, errors = BlazeFace(), []
    for pixels in fer2013_faces.images[:100]:
        face = cv2.resize(np.asarray(pixels), None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
        wall = cv2.copyMakeBorder(face, 100, 188, 150, 298, cv2.BORDER_REPLICATE)
        boxes = detector(np.repeat(wall[:, :, None], 3, axis=2))
        errors += [(center(box) - (246, 196)) / 192 for box in boxes[:1]]
    assert len(errors) >= 70
    assert np.abs(np.median(errors, axis=0)).max() < 0.03
