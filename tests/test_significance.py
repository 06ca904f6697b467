import numpy as np
import pytest

from emotion.metrics import class_scores, confusion_matrix
from emotion.significance import compare, holm, mcnemar, paired_bootstrap

rng = np.random.default_rng(0)


def predictions(labels: np.ndarray, right: float) -> np.ndarray:
    """Right with this probability, else one class on."""
    return (labels + (rng.random(len(labels)) > right)) % 3


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 6, 0.03125), (1, 9, 0.021484375), (10, 25, 0.016673)],  # binomial tables, p = 1/2
)
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == mcnemar(only_second, only_first) == pytest.approx(p, abs=1e-6)


def test_mcnemar_of_many_faces_is_near_the_chi_squared_one() -> None:
    assert mcnemar(1000, 1100) == pytest.approx(0.0308, abs=5e-4)  # (|1000 - 1100| - 1)^2 / 2100 = 4.667


def test_difference_is_the_second_less_the_first() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    first, second = labels.copy(), labels.copy()
    first[:3], second[9] = 1, 0
    found = compare(labels, first, second, 3)
    assert (found.faces, found.only_first, found.only_second) == (10, 1, 3)
    assert found.accuracy.figure == pytest.approx(0.2)
    import torch

    f1 = [
        class_scores(confusion_matrix(torch.from_numpy(labels), torch.from_numpy(p), 3)).macro_f1.item()
        for p in (first, second)
    ]
    assert found.macro_f1.figure == pytest.approx(f1[1] - f1[0])


def test_equal_predictions_are_no_difference() -> None:
    labels = rng.integers(0, 3, 200)
    found = compare(labels, predicted := predictions(labels, 0.7), predicted, 3)
    assert found.accuracy == (0, 0, 0, 1)
    assert found.macro_f1 == (0, 0, 0, 1)


def test_paired_interval_is_narrower_than_two_apart() -> None:
    """Networks that mostly agree: what they share says nothing about their difference."""
    labels = rng.integers(0, 3, 4000)
    first = predictions(labels, 0.6)
    second = np.where(rng.random(4000) < 0.03, labels, first)
    accuracy, _ = paired_bootstrap(labels, first, second, 3)
    assert accuracy.p < 0.001
    assert accuracy.upper - accuracy.lower < 0.01  # two Wilson intervals of 0.6 in 4,000 faces are 0.03 wide each


def test_chance_is_found_as_often_as_it_says() -> None:
    found = 0
    for seed in range(100):
        labels = rng.integers(0, 3, 300)
        pair = paired_bootstrap(labels, predictions(labels, 0.6), predictions(labels, 0.6), 3, seed)
        found += pair[1].p < 0.05
    assert found <= 12


def test_holm_is_the_textbooks() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
