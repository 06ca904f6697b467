import numpy as np
import pytest
import torch

from emotion.evaluation.score import score, stand_in

CLASSES = ("a", "b", "c")
rng = np.random.default_rng(0)


def probabilities(labels: np.ndarray, right: float) -> torch.Tensor:
    """One-hot predictions, `right` of them on the label and the others one class on."""
    wrong = np.arange(len(labels)) >= right * len(labels)
    return torch.nn.functional.one_hot(torch.from_numpy((labels + wrong) % 3), 3).float()


def test_wilson_interval_is_the_textbooks() -> None:
    labels = np.zeros(100, np.int64)
    figure, lower, upper = score(probabilities(labels, 0.9), labels, CLASSES)["accuracy"]
    assert (figure, round(lower, 4), round(upper, 4)) == (0.9, 0.8256, 0.9448)  # Wilson 1927, z = 1.96


def test_all_right_is_one_everywhere() -> None:
    labels = np.arange(60) % 3
    found = score(probabilities(labels, 1.0), labels, CLASSES)
    assert found["accuracy"][0] == found["macro_f1"][0] == found["classes"]["b"]["f1"][0] == 1
    assert found["confusion"] == [[20, 0, 0], [0, 20, 0], [0, 0, 20]]


def test_intervals_hold_their_figures_and_narrow_with_more_faces() -> None:
    widths = []
    for count in (90, 9000):
        labels = np.arange(count) % 3
        found = score(probabilities(labels, 0.7), labels, CLASSES)
        for figure, lower, upper in (found["accuracy"], found["macro_f1"], found["classes"]["c"]["f1"]):
            assert lower <= figure <= upper
        widths.append(found["macro_f1"][2] - found["macro_f1"][1])
    assert widths[1] < widths[0] / 5


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered, truth = 0, 0.7
    for _ in range(200):
        labels = rng.integers(0, 3, 300)
        wrong = rng.random(300) > truth
        predicted = torch.nn.functional.one_hot(torch.from_numpy((labels + wrong * rng.integers(1, 3, 300)) % 3), 3)
        _, lower, upper = score(predicted.float(), labels, CLASSES)["macro_f1"]
        covered += lower <= truth <= upper  # with even classes and errors, macro F1 is the accuracy
    assert covered >= 180


def test_class_that_is_never_predicted_has_an_open_precision() -> None:
    labels = np.array([0, 1])
    found = score(torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]), labels, CLASSES)
    assert found["classes"]["b"]["precision"] == [0.0, 0.0, 1.0]


def test_the_surest_half_is_judged_by_itself() -> None:
    labels = np.zeros(10, np.int64)
    sure = torch.tensor([[0.9, 0.1, 0.0]] * 5 + [[0.4, 0.6, 0.0]] * 5)  # the sure ones are right
    found = score(sure, labels, CLASSES)["selective"]
    assert found["accuracy"]["0.5"][0] == 1
    assert found["accuracy"]["0.8"][0] == pytest.approx(5 / 8)
    assert found["accuracy"]["0.9"][0] == pytest.approx(5 / 9)
    assert found["aurc"] == pytest.approx(np.mean([0] * 5 + [k / (5 + k) for k in range(1, 6)]))


def test_no_faces_have_no_calibration_and_open_intervals() -> None:
    found = score(torch.zeros(0, 3), np.zeros(0, np.int64), CLASSES, untempered=torch.zeros(0, 3))
    assert found["ece"] is found["selective"]["aurc"] is found["uncalibrated"]["ece"] is None
    assert found["selective"]["accuracy"]["0.5"] == [0.0, 0.0, 1.0]


def test_what_there_would_be_without_a_temperature_is_told_besides() -> None:
    labels, probable = np.arange(30) % 3, torch.rand(30, 3).softmax(-1)
    found = score(probable.sqrt() / probable.sqrt().sum(1, keepdim=True), labels, CLASSES, untempered=probable)
    alone = score(probable, labels, CLASSES)
    assert found["uncalibrated"] == {key: alone[key] for key in ("ece", "nll", "brier")}
    assert "uncalibrated" not in alone


def test_pixels_that_stand_elsewhere_are_found() -> None:
    images = rng.integers(0, 256, (6, 4, 4), dtype=np.uint8)
    images[4] = images[1]
    found = stand_in(images, np.array([3, 4, 5]), np.array([0, 1, 2]))
    assert found.tolist() == [False, True, False]


@pytest.mark.fer2013
def test_leaked_rows_of_fer2013(fer2013: object) -> None:
    """280 PublicTest and 288 PrivateTest rows stand in Training as well, 314 PrivateTest rows in either."""
    from pathlib import Path

    from emotion.data.cache import prepare
    from emotion.data.faces import PRIVATE_TEST, PUBLIC_TEST, TRAINING

    faces = prepare({"_target_": "emotion.data.readers.fer2013.read_csv", "path": str(fer2013)}, Path("cache"))
    training, public, private = (np.flatnonzero(faces.usage == u) for u in (TRAINING, PUBLIC_TEST, PRIVATE_TEST))
    assert stand_in(faces.images, public, training).sum() == 280
    assert stand_in(faces.images, private, training).sum() == 288
    assert stand_in(faces.images, private, np.concatenate([training, public])).sum() == 314
