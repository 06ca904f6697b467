import numpy as np
import pytest

from emotion.data.crop import Box
from emotion.inference.annotate import EMOTION_COLORS, MIN_SIDE, annotate, class_colors
from emotion.inference.predictor import Face
from tests.images import scene

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def face(left: float, top: float, side: float, label: str = "happy", classes: tuple[str, ...] = CLASSES) -> Face:
    probs = np.full(len(classes), 0.2 / (len(classes) - 1), np.float32)
    probs[classes.index(label)] = 0.8
    return Face(Box(left, top, side, 1.0), classes, probs, np.eye(48, dtype=np.uint8) * 255)


def count_pixels(image: np.ndarray, label: str) -> int:
    return int((np.abs(image.astype(int) - class_colors([label])[0]).max(-1) < 3).sum())


def test_a_face_gets_a_box_in_its_class_color_and_the_input_is_unchanged() -> None:
    image = scene((200, 150, 200))
    before = image.copy()
    annotated = annotate(image, [face(200, 150, 200, "happy")])
    assert annotated.shape == image.shape
    assert (image == before).all()
    assert count_pixels(annotated[140:360, 195:206], "happy") > 200
    assert count_pixels(annotated, "happy") > 10 * count_pixels(annotated, "sad")
    assert (annotate(image, []) == image).all()


def test_a_small_image_is_enlarged() -> None:
    assert annotate(np.zeros((48, 60, 3), np.uint8), [face(0, 0, 48)]).shape == (8 * 48, 8 * 60, 3)
    assert 8 * 48 >= MIN_SIDE


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (480, 640), (1500, 2000)])
@pytest.mark.parametrize("box", [(0, 0, 1), (-50, -50, 400), (100, 100, 5000), (600, 440, 39)])
def test_any_box_in_any_image_can_be_drawn(size: tuple[int, int], box: tuple[int, int, int]) -> None:
    annotated = annotate(np.zeros((*size, 3), np.uint8), [face(*box)], [12])
    assert annotated.shape[0] * size[1] == annotated.shape[1] * size[0]
    assert annotated.dtype == np.uint8


def test_the_bars_of_a_face_without_room_are_in_a_margin() -> None:
    image = np.full((500, 500, 3), 90, np.uint8)
    filling = face(20, 60, 430)
    assert annotate(image, [filling]).shape == image.shape  # as for a frame of a video
    extended = annotate(image, [filling], extend=True)
    assert extended.shape[0] == 500
    assert extended.shape[1] > 550
    assert count_pixels(extended[:, 460:], "happy") > 100
    assert annotate(image, [face(200, 150, 100)], extend=True).shape == image.shape


def test_bars_are_next_to_no_other_face() -> None:
    """Bars below the upper face would be beside the lower one."""
    image, upper = np.full((400, 640, 3), 90, np.uint8), face(100, 60, 90, "happy")
    beside, alone = annotate(image, [upper, face(230, 120, 90, "sad")]), annotate(image, [upper])
    assert count_pixels(alone[60:150, 200:330], "happy") > 50
    assert count_pixels(beside[60:150, 200:330], "happy") == 0


def test_a_face_in_a_crowd_has_a_stacked_bar() -> None:
    crowd = [face(20 + 88 * (n % 14), 60 + 130 * (n // 14), 66, CLASSES[n % 7]) for n in range(70)]
    inside = annotate(np.zeros((720, 1280, 3), np.uint8), crowd)[60:124, 22:84]
    assert count_pixels(inside, "angry") > 100
    assert all(count_pixels(inside, name) > 0 for name in CLASSES)


def test_any_number_of_classes_with_any_names() -> None:
    names = tuple(f"Gefühl {number}" for number in range(30))
    image = scene((200, 100, 200))
    annotated = annotate(image, [face(200, 100, 200, names[3], names)])
    assert annotated.shape == image.shape
    assert (annotated != image).any(2).sum() > 1000


def test_forms_of_a_class_name_share_a_color() -> None:
    for name, other in (("angry", "anger"), ("happy", "happiness"), ("sad", "sadness"), ("Surprise", "surprise")):
        assert class_colors([name]) == class_colors([other])
    assert len(set(class_colors([*CLASSES, "contempt", "bored", "tired"]))) == 10
    assert set(class_colors(CLASSES)) < set(EMOTION_COLORS.values())
