import numpy as np
import pytest
import torch

from emotion.checkpoints.ensemble import load_ensemble
from emotion.data.faces import PRIVATE_TEST, PUBLIC_TEST, TRAINING, Faces
from emotion.evaluation.score import accuracy_and_f1, batched_inference, duplicated_in, score, score_rows
from emotion.metrics.statistics import wilson_interval
from emotion.reporting.text import format_interval
from tests.images import FACES

CLASSES = ("a", "b", "c")


def probabilities(labels: np.ndarray, accuracy: float) -> torch.Tensor:
    """One-hot predictions with this accuracy."""
    wrong = np.arange(len(labels)) >= accuracy * len(labels)
    return torch.nn.functional.one_hot(torch.from_numpy((labels + wrong) % 3), 3).float()


def test_perfect_predictions_score_one() -> None:
    labels = np.arange(60) % 3
    found = score(probabilities(labels, 1.0), labels, CLASSES)
    assert found["accuracy"][0] == found["macro_f1"][0] == found["classes"]["b"]["f1"][0] == 1
    assert found["accuracy"] == wilson_interval(1.0, 60)
    assert found["confusion"] == [[20, 0, 0], [0, 20, 0], [0, 0, 20]]


def test_intervals_contain_their_values_and_narrow_with_more_faces() -> None:
    widths = []
    for count in (90, 9000):
        labels = np.arange(count) % 3
        found = score(probabilities(labels, 0.7), labels, CLASSES)
        for value, lower, upper in (found["accuracy"], found["macro_f1"], found["classes"]["c"]["f1"]):
            assert lower <= value <= upper
        widths.append(found["macro_f1"][2] - found["macro_f1"][1])
    assert widths[1] < widths[0] / 5


def test_bootstrap_interval_has_its_coverage(rng: np.random.Generator) -> None:
    covered, truth = 0, 0.7
    for _ in range(200):
        labels = rng.integers(0, 3, 300)
        wrong = rng.random(300) > truth
        predicted = torch.nn.functional.one_hot(torch.from_numpy((labels + wrong * rng.integers(1, 3, 300)) % 3), 3)
        _, lower, upper = score(predicted.float(), labels, CLASSES)["macro_f1"]
        covered += lower <= truth <= upper  # with even classes and errors, macro F1 is the accuracy
    assert 183 <= covered <= 197  # 190 expected, standard deviation 3; 180 of an interval of 90 %


def test_precision_of_a_class_that_is_never_predicted_is_unknown() -> None:
    labels = np.array([0, 1])
    found = score(torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]), labels, CLASSES)
    assert found["classes"]["b"]["precision"] == [0.0, 0.0, 1.0]


def test_selective_accuracy_by_hand() -> None:
    labels = np.zeros(10, np.int64)
    predicted = torch.tensor([[0.9, 0.1, 0.0]] * 5 + [[0.4, 0.6, 0.0]] * 5)  # the confident ones are correct
    found = score(predicted, labels, CLASSES)["selective"]
    assert list(found["accuracy"]) == ["0.5", "0.8", "0.9"]
    assert found["accuracy"]["0.5"] == wilson_interval(1.0, 5)
    assert found["accuracy"]["0.8"][0] == pytest.approx(5 / 8)
    assert found["accuracy"]["0.9"][0] == pytest.approx(5 / 9)
    assert found["aurc"] == pytest.approx(np.mean([0] * 5 + [k / (5 + k) for k in range(1, 6)]))


def test_scores_without_faces() -> None:
    found = score(torch.zeros(0, 3), np.zeros(0, np.int64), CLASSES, uncalibrated=torch.zeros(0, 3))
    assert found["ece"] is found["selective"]["aurc"] is found["uncalibrated"]["ece"] is None
    of_class = found["classes"]["a"]
    shares = found["accuracy"], found["macro_f1"], of_class["f1"], found["selective"]["accuracy"]["0.5"]
    assert list(map(format_interval, shares)) == ["-"] * 4
    assert accuracy_and_f1(torch.zeros(0).long(), torch.zeros(0).long(), 3)["macro_f1"] == [0.0, 0.0, 1.0]


def test_f1_of_a_class_that_neither_occurs_nor_is_predicted_is_unknown() -> None:
    found = score(torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]), np.array([0, 1]), CLASSES)["classes"]
    assert found["b"]["f1"] == [0.0, 0.0, 0.0]
    assert found["c"]["f1"] == [0.0, 0.0, 1.0]


def test_uncalibrated_probabilities_are_scored_as_well() -> None:
    labels, probable = np.arange(30) % 3, torch.rand(30, 3).softmax(-1)
    found = score(probable.sqrt() / probable.sqrt().sum(1, keepdim=True), labels, CLASSES, uncalibrated=probable)
    alone = score(probable, labels, CLASSES)
    assert found["uncalibrated"] == {key: alone[key] for key in ("ece", "nll", "brier")}
    assert "uncalibrated" not in alone


def test_precision_is_of_the_predicted_and_recall_of_the_true() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    predicted = torch.eye(3)[[0, 0, 0, 1, 1, 2]]
    found = score(predicted, labels, CLASSES)["classes"]
    assert (found["a"]["n"], found["b"]["n"], found["c"]["n"]) == (4, 2, 0)
    assert (found["a"]["precision"], found["a"]["recall"]) == (wilson_interval(1, 3), wilson_interval(0.75, 4))
    assert (found["b"]["precision"], found["b"]["recall"]) == (wilson_interval(0.5, 2), wilson_interval(0.5, 2))
    assert (found["c"]["precision"], found["c"]["recall"]) == (wilson_interval(0, 1), [0, 0, 1])
    assert score(predicted, labels, CLASSES)["confusion"] == [[3, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_cross_entropy_to_the_votes_and_their_entropy_by_hand() -> None:
    votes = np.array([[0.5, 0.5, 0], [1, 0, 0]], np.float32)
    found = score(torch.tensor([[0.25, 0.5, 0.25], [0.5, 0.5, 0]]), np.array([0, 0]), CLASSES, votes)["votes"]
    assert found["cross_entropy"][0] == pytest.approx(np.log(2) * (1.5 + 1) / 2)
    assert found["entropy"][0] == pytest.approx(np.log(2) / 2)


@pytest.mark.parametrize("count", [255, 256, 257, 512])
def test_inference_returns_every_row_once_in_order(count: int) -> None:
    images, rows = np.arange(600, dtype=np.int64)[:, None].astype(np.uint8), np.arange(count)[::-1].copy() + 7
    found = batched_inference(lambda pixels: pixels + 0.5, images, rows, torch.device("cpu"))
    assert found.dtype == torch.float32
    assert found[:, 0].tolist() == [(row % 256) + 0.5 for row in rows]


def test_labels_votes_and_duplicates_are_those_of_the_rows() -> None:
    """Neither the position among the evaluated rows, nor that among the deduplicated ones."""
    ensemble = load_ensemble("fast_cnn")
    names, rows, training_rows = ensemble.classes, np.array([5, 2, 8]), np.array([0, 1, 7])
    images = np.concatenate([FACES, FACES[[0, 2, 4]]])  # row 7 has the pixels of row 2
    labels = np.array([6, 6, 3, 6, 6, 1, 6, 6, 0])
    votes = np.eye(len(names), dtype=np.float32)[labels]
    found = score_rows(ensemble, images, labels, rows, training_rows, ("flip",), votes=votes)["flip"]
    assert found.labels.tolist() == [1, 3, 0]
    assert found.deduplicated.tolist() == [True, False, True]
    probabilities = ensemble.probabilities(torch.from_numpy(images[rows]), "flip")
    torch.testing.assert_close(found.probabilities, probabilities)
    assert found.predicted.tolist() == probabilities.argmax(1).tolist()
    own = probabilities[range(3), found.labels].log()  # all votes are for the label
    for part, mean, count in (("all", -own.mean(), 3), ("deduplicated", -own[[0, 2]].mean(), 2)):
        scores = found.scores[part]
        assert scores["n"] == count
        assert scores["votes"]["cross_entropy"][0] == pytest.approx(mean.item(), rel=1e-5)
        assert scores["nll"][0] == pytest.approx(mean.item(), rel=1e-5)
    assert found.scores["tta"] == "flip"


def test_accuracy_and_f1_equal_those_of_the_scorer() -> None:
    labels, predicted = torch.arange(30) % 3, torch.arange(30) % 2
    whole = score(torch.eye(3)[predicted], labels.numpy(), CLASSES)
    assert accuracy_and_f1(predicted, labels, 3) == {key: whole[key] for key in ("accuracy", "macro_f1")}


def test_duplicates_are_found_by_their_pixels(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (6, 4, 4), dtype=np.uint8)
    images[4] = images[1]
    found = duplicated_in(images, np.array([3, 4, 5]), np.array([0, 1, 2]))
    assert found.tolist() == [False, True, False]


@pytest.mark.fer2013
def test_leaked_rows_of_fer2013(fer2013_faces: Faces) -> None:
    """280 PublicTest and 288 PrivateTest rows are also in Training, 314 PrivateTest rows in either."""
    faces = fer2013_faces
    training, public, private = (np.flatnonzero(faces.usage == u) for u in (TRAINING, PUBLIC_TEST, PRIVATE_TEST))
    assert duplicated_in(faces.images, public, training).sum() == 280
    assert duplicated_in(faces.images, private, training).sum() == 288
    assert duplicated_in(faces.images, private, np.concatenate([training, public])).sum() == 314
