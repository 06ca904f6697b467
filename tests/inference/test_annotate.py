import numpy as np
import pytest

from emotion.inference.annotate import LEAST, OF_EMOTIONS, annotated, colours_of
from emotion.inference.detectors import Box
from emotion.inference.predictor import Face
from tests.pictures import scene

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def face(left: float, top: float, side: float, label: str = "happy", classes: tuple[str, ...] = CLASSES) -> Face:
    shares = np.full(len(classes), 0.2 / (len(classes) - 1), np.float32)
    shares[classes.index(label)] = 0.8
    return Face(Box(left, top, side, 1.0), classes, shares, np.zeros((48, 48), np.uint8))


def pixels_of(picture: np.ndarray, label: str) -> int:
    return int((np.abs(picture.astype(int) - colours_of([label])[0]).max(-1) < 3).sum())


def test_a_face_gets_a_box_in_its_class_s_colour_and_the_picture_stays() -> None:
    picture = scene((200, 150, 200))
    before = picture.copy()
    drawn = annotated(picture, [face(200, 150, 200, "happy")])
    assert drawn.shape == picture.shape
    assert (picture == before).all()
    assert pixels_of(drawn[140:360, 195:206], "happy") > 200
    assert pixels_of(drawn, "happy") > 10 * pixels_of(drawn, "sad")


def test_without_faces_a_picture_is_as_it_was() -> None:
    assert (annotated(scene((50, 50, 300)), []) == scene((50, 50, 300))).all()


def test_a_small_picture_is_enlarged_until_letters_are_legible() -> None:
    drawn = annotated(np.zeros((48, 60, 3), np.uint8), [face(0, 0, 48)])
    assert drawn.shape == (8 * 48, 8 * 60, 3)
    assert 8 * 48 >= LEAST


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (480, 640), (3000, 4000)])
@pytest.mark.parametrize("box", [(0, 0, 1), (-50, -50, 400), (100, 100, 5000), (600, 440, 39)])
def test_any_face_of_any_picture_can_be_drawn(size: tuple[int, int], box: tuple[int, int, int]) -> None:
    drawn = annotated(np.zeros((*size, 3), np.uint8), [face(*box)], [12])
    assert drawn.shape[0] * size[1] == drawn.shape[1] * size[0]
    assert drawn.dtype == np.uint8


def test_a_face_in_a_crowd_has_its_probabilities_in_one_strip() -> None:
    crowd = [face(20 + 88 * (n % 14), 60 + 130 * (n // 14), 66, CLASSES[n % 7]) for n in range(70)]
    drawn = annotated(np.zeros((720, 1280, 3), np.uint8), crowd)
    inside = drawn[60:124, 22:84]
    assert pixels_of(inside, "angry") > 100
    assert all(pixels_of(inside, name) > 0 for name in CLASSES)


def test_any_number_of_classes_of_any_name_is_drawn() -> None:
    names = tuple(f"Gefühl {number}" for number in range(30))
    assert annotated(scene((200, 100, 200)), [face(200, 100, 200, names[3], names)]).shape == (480, 640, 3)


def test_a_class_has_one_colour_whatever_its_form() -> None:
    for one, other in (("angry", "anger"), ("happy", "happiness"), ("sad", "sadness"), ("Surprise", "surprise")):
        assert colours_of([one]) == colours_of([other])
    assert len(set(colours_of([*CLASSES, "contempt", "bored", "tired"]))) == 10
    assert set(colours_of(CLASSES)) < set(OF_EMOTIONS.values())
