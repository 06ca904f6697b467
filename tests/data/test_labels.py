import numpy as np
import pytest

from emotion.config.compose import compose
from emotion.data.faces import EMOTIONS
from emotion.data.labels import NO_CLASS, relabel
from emotion.errors import UserError

EACH = np.arange(7, dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "classes", "labels"),
    [
        ("seven", list(EMOTIONS), [0, 1, 2, 3, 4, 5, 6]),
        ("six", ["happiness", "surprise", "sadness", "anger", "disgust", "fear"], [3, 4, 5, 0, 2, 1, NO_CLASS]),
        ("four", ["happy", "neutral", "sad", "surprise"], [-1, -1, -1, 0, 2, 3, 1]),
    ],
)
def test_schemes_of_the_config(name: str, classes: list[str], labels: list[int]) -> None:
    scheme = {name: list(members) for name, members in compose("train", f"labels={name}").labels.items()}
    assert list(scheme) == classes
    assert relabel(EACH, EMOTIONS, scheme).tolist() == labels


def test_schemes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"contains 'contempt', which the data does not have.*labels=NAME"):
        relabel(EACH, EMOTIONS, {"contempt": ["contempt"]})
    with pytest.raises(UserError, match="'sad' occurs in two classes"):
        relabel(EACH, EMOTIONS, {"a": ["sad"], "b": ["sad"]})
