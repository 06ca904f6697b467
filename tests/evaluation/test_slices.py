import numpy as np
import pytest
import torch

from emotion.evaluation.score import EvaluationResult
from emotion.evaluation.slices import agreement, brightness, by_quartile, quartiles


def test_quartiles_of_distinct_values_are_even_and_ordered() -> None:
    found = quartiles(np.array([7.0, 1.0, 3.0, 5.0, 8.0, 2.0, 6.0, 4.0]))
    assert [np.flatnonzero(mask).tolist() for mask in found] == [[1, 5], [2, 7], [3, 6], [0, 4]]


@pytest.mark.parametrize("ties", [0.0, 1.0])
def test_equal_values_stay_together(ties: float) -> None:
    values = np.concatenate([np.linspace(0.2, 0.8, 40), np.full(60, ties)])
    found = quartiles(values)
    assert sum(mask.sum() for mask in found) == 100
    assert [mask[40:].sum() for mask in found].count(60) == 1
    assert 2 <= len(found) <= 3


def test_nan_is_in_no_quartile() -> None:
    assert sum(mask.sum() for mask in quartiles(np.array([1.0, np.nan, 2.0]))) == 2
    assert quartiles(np.array([np.nan])) == []


def test_each_quartile_is_scored_separately() -> None:
    labels = np.arange(40) % 2
    predicted = np.where(np.arange(40) < 10, 1 - labels, labels)  # all of the first quartile wrong
    empty = torch.zeros(0)
    result = EvaluationResult({}, np.arange(40), labels, predicted, np.ones(40, bool), empty, None)
    first, *others = by_quartile(np.arange(40.0), result, 2)
    assert (first["from"], first["to"], first["n"]) == (0, 9, 10)
    assert first["accuracy"][0] == first["macro_f1"][0] == 0
    assert [other["accuracy"][0] for other in others] == [1, 1, 1]


def test_brightness_is_the_mean_of_all_pixels() -> None:
    images = np.stack([np.zeros((4, 4, 3)), np.full((4, 4, 3), 10), np.full((4, 4, 3), 200)]).astype(np.uint8)
    images[2, :, :, 0] = 50
    assert brightness(images, np.array([2, 1])).tolist() == [150, 10]


def test_agreement_is_the_share_of_the_largest_vote() -> None:
    votes = np.array([[8, 2, 0], [0, 0, 0], [3, 3, 4], [1, 0, 0]], np.uint8)
    found = agreement(votes, np.array([0, 1, 2, 3]))
    assert found[[0, 2, 3]].tolist() == [0.8, 0.4, 1.0]
    assert np.isnan(found[1])
