import cv2
import numpy as np
import pytest

from emotion.data.crop import Box, crop
from emotion.data.faces import Faces
from emotion.errors import UserError
from emotion.inference.blazeface import BlazeFace, _box, _merge
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
        assert 0.75 <= box.score <= 1
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


@pytest.mark.parametrize("threshold", [0.001, 1.5])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(UserError, match=rf"threshold={threshold}: expected a probability from 0.01 to 1"):
        BlazeFace(threshold)


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


def row(score: float, x: float, y: float, side: float, *eyes: tuple[float, float]) -> np.ndarray:
    """A candidate: score, box, right and left eye, and further keypoints."""
    right_eye, left_eye = eyes or ((0, 0), (1, 0))
    return np.array([score, x, y, side, side, *right_eye, *left_eye, *[0.0] * 8])


SURE = 1 / (1 + (3 / 7) ** 5.33 / np.exp(2.2))
"""The probability of a face at a score of 0.7."""


def test_the_crop_is_larger_than_the_box_and_its_center_above() -> None:
    """A box of 88 is a crop of 100, whose center is 3.8 above the box's in the face's own upright."""
    level = _box(row(0.7, 300, 200, 88, (280, 180), (320, 185)))  # 7 degrees are not turned
    assert level == pytest.approx((300 - 50, 200 - 3.8 - 50, 100, SURE, 0))
    for eyes, angle, center in (
        (((280, 180), (280, 220)), 90, (303.8, 200)),  # clockwise: above is to the right
        (((280, 220), (280, 180)), -90, (296.2, 200)),
        (((320, 180), (280, 180)), 180, (300, 203.8)),
        (((280, 180), (280 + 3**0.5, 181)), 30, (300 + 1.9, 200 - 3.8 * 3**0.5 / 2)),
    ):
        assert _box(row(0.7, 300, 200, 88, *eyes)) == pytest.approx((center[0] - 50, center[1] - 50, 100, SURE, angle))
    oblong = row(0.7, 300, 200, 88, (280, 180), (320, 180))
    oblong[3] = 132
    assert _box(oblong).side == pytest.approx(125)


@pytest.mark.parametrize(("degrees", "turned"), [(14.9, 0), (15.1, 15.1), (-14.9, 0), (-15.1, -15.1)])
def test_a_face_is_cropped_upright_from_15_degrees(degrees: float, turned: float) -> None:
    eye = 100 * np.cos(np.radians(degrees)), 100 * np.sin(np.radians(degrees))
    assert _box(row(1, 0, 0, 50, (0, 0), eye)).angle == pytest.approx(turned)


def test_rows_of_one_face_are_averaged_by_their_scores() -> None:
    """Squares of 100 moved by 40: IoU 60 / 140; a third by 60 more has 40 / 160 of the first and is another face."""
    rows = np.array([row(0.3, 40, 0, 100), row(0.9, 0, 0, 100),
                     row(0.5, -60, 0, 100)])  # fmt: skip
    first, second = _merge(rows)
    assert (first[0], first[1], first[3]) == (0.9, pytest.approx(10), 100)
    assert (second[0], second[1]) == (0.5, -60)


def test_a_row_within_another_is_the_same_face_and_does_not_change_it() -> None:
    rows = np.array([row(0.9, 0, 0, 100), row(0.8, 10, 10, 50),
                     row(0.7, 80, 0, 60)])  # fmt: skip
    assert np.round([merged[:5] for merged in _merge(rows)], 9).tolist() == [
        [0.9, 0, 0, 100, 100],
        [0.7, 80, 0, 60, 60],
    ]
    assert _merge(np.zeros((0, 17))) == []


def test_faces_are_where_they_are_in_images_of_any_size() -> None:
    """Within 5 % of the side: the network sees other pixels at other scales."""
    alone = np.asarray(scene((60, 50, 140), width=300, height=260))
    (first,) = BlazeFace()(alone)
    moved = cv2.copyMakeBorder(alone, 33, 71, 57, 19, cv2.BORDER_REPLICATE)
    doubled = cv2.resize(alone, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    for image, (left, top), factor in ((moved, (57, 33), 1), (doubled, (0, 0), 2)):
        (box,) = BlazeFace()(image)
        assert np.abs(center(box) - factor * center(first) - (left, top)).max() < 0.05 * factor * first.side
        assert box.side == pytest.approx(factor * first.side, rel=0.05)
