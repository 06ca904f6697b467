import numpy as np
import pytest

from emotion.config.compose import compose
from emotion.data.faces import EMOTIONS
from emotion.data.labels import LEFT_OUT, relabel
from emotion.errors import UserError

EACH = np.arange(7, dtype=np.uint8)


def scheme(name: str) -> dict[str, list[str]]:
    return {name: list(members) for name, members in compose("train", f"labels={name}").labels.items()}


def test_seven_is_the_order_of_the_file() -> None:
    assert relabel(EACH, EMOTIONS, scheme("seven")).tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_six_leaves_neutral_out_in_its_own_order() -> None:
    assert list(scheme("six")) == ["happiness", "surprise", "sadness", "anger", "disgust", "fear"]
    assert relabel(EACH, EMOTIONS, scheme("six")).tolist() == [3, 4, 5, 0, 2, 1, LEFT_OUT]


def test_four_is_happy_neutral_sad_surprise() -> None:
    assert relabel(EACH, EMOTIONS, scheme("four")).tolist() == [-1, -1, -1, 0, 2, 3, 1]


def test_classes_can_be_merged() -> None:
    merged = {"negative": ["angry", "disgust", "fear", "sad"], "positive": ["happy"]}
    assert relabel(EACH, EMOTIONS, merged).tolist() == [0, 0, 0, 1, 0, -1, -1]


def test_class_that_the_data_lacks_is_refused() -> None:
    with pytest.raises(UserError, match=r"takes in 'contempt', which the data does not have.*labels=NAME"):
        relabel(EACH, EMOTIONS, {"contempt": ["contempt"]})


def test_class_under_two_names_is_refused() -> None:
    with pytest.raises(UserError, match="'sad' stands under two classes"):
        relabel(EACH, EMOTIONS, {"a": ["sad"], "b": ["sad"]})
