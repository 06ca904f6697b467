import numpy as np
import pytest

from emotion.config.compose import compose
from emotion.data.faces import EMOTIONS
from emotion.data.labels import NO_CLASS, check_class_names, relabel
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


def test_classes_are_matched_in_any_case_and_by_their_synonyms() -> None:
    scheme = {"glad": ["happy", "surprise"], "sad": ["sad"]}
    classes = ["Happiness", "SAD", "surprised", "anger"]
    assert relabel(EACH[:4], classes, scheme).tolist() == [0, 1, 0, NO_CLASS]


def test_a_source_may_lack_classes_if_it_has_no_unknown_ones() -> None:
    seven = compose("train", "labels=seven").labels
    assert relabel(EACH[:2], ["happy", "contempt"], seven).tolist() == [3, NO_CLASS]
    with pytest.raises(UserError, match=r"does not have 'angry', .*; its classes are happy, hapy"):
        relabel(EACH[:2], ["happy", "hapy"], seven)


def test_a_scheme_may_name_the_codes_of_classes() -> None:
    scheme = {"glad": ["HA"], "other": ["an", "NE"]}
    assert relabel(EACH[:3], ["angry", "happy", "neutral"], scheme).tolist() == [1, 0, 1]
    assert relabel(EACH[:3], ["an", "ha", "NE"], scheme).tolist() == [1, 0, 1]
    assert relabel(EACH[:1], ["AN"], {"AN": ["AN"]}).tolist() == [0]


def test_classes_may_be_numbers() -> None:
    assert relabel(EACH[:3], ["0", "1", "2"], {"calm": [2], "tense": [0, "1"]}).tolist() == [1, 1, 0]


@pytest.mark.parametrize("members", ["glee", None, [None], 3])
def test_the_members_of_a_class_are_a_list(members: object) -> None:
    with pytest.raises(UserError, match=r"labels.happy=.*: expected a list of the data's classes"):
        relabel(EACH, EMOTIONS, {"happy": members})  # type: ignore[dict-item]


def test_schemes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"have 'glee', 'scorn'; .* labels=NAME 'labels.a=\[CLASS\]' 'labels.b="):
        relabel(EACH, EMOTIONS, {"a": ["sad", "glee"], "b": ["scorn"]})
    with pytest.raises(UserError, match="'sad' occurs in two classes"):
        relabel(EACH, EMOTIONS, {"a": ["sad"], "b": ["sad"]})


@pytest.mark.parametrize("name", ["unclear", "Unclear"])
def test_the_label_of_unsure_faces_is_no_class(name: str) -> None:
    check_class_names([*EMOTIONS, "clear", "unclear_sad"])
    with pytest.raises(UserError, match=rf"found a class {name}, .*; expected another name\. Rename it"):
        check_class_names([*EMOTIONS, name])
