import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from emotion.metrics.calibration import (
    brier_score,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    soft_cross_entropy,
)

# confidence 0.6 with half correct, twice as many faces as confidence 0.9 with all correct
PROBABILITIES = torch.tensor([[0.6, 0.4]] * 4 + [[0.1, 0.9]] * 2)
LABELS = torch.tensor([0, 0, 1, 1, 1, 1])


def test_reliability_and_calibration_error_by_hand() -> None:
    binned = reliability(PROBABILITIES, LABELS, bins=10)
    assert binned.faces.tolist() == [0, 0, 0, 0, 0, 4, 0, 0, 2, 0]
    assert binned.accuracy[[5, 8]].tolist() == [0.5, 1]
    assert binned.confidence[[5, 8]].tolist() == pytest.approx([0.6, 0.9])
    expected = (2 * 0.1 + 1 * 0.1) / 3
    assert expected_calibration_error(PROBABILITIES, LABELS).item() == pytest.approx(expected, abs=1e-6)


def test_certain_predictions_are_calibrated_if_correct_and_maximally_wrong_if_not() -> None:
    certain, correct = torch.eye(3), torch.arange(3)
    assert expected_calibration_error(certain, correct) == 0
    assert expected_calibration_error(certain, (correct + 1) % 3) == 1
    assert brier_score(certain, correct).tolist() == [0, 0, 0]
    assert brier_score(certain, (correct + 1) % 3).tolist() == [2, 2, 2]


def test_one_bin_is_the_gap_between_mean_confidence_and_accuracy() -> None:
    probabilities = torch.rand(500, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)
    labels = torch.arange(500) % 4
    gap = probabilities.amax(-1).mean() - (probabilities.argmax(-1) == labels).float().mean()
    assert expected_calibration_error(probabilities, labels, bins=1).item() == pytest.approx(gap.abs().item(), abs=1e-6)


def test_likelihood_is_the_cross_entropy_and_stays_finite() -> None:
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 4
    expected = cross_entropy(logits, labels).item()
    assert negative_log_likelihood(logits.softmax(-1), labels).mean().item() == pytest.approx(expected, abs=1e-5)
    assert negative_log_likelihood(torch.tensor([[1.0, 0.0]]), torch.tensor([1])).isfinite().all()


def test_brier_score_by_hand() -> None:
    assert brier_score(torch.full((1, 4), 0.25), torch.tensor([2])).item() == pytest.approx(0.75)
    assert brier_score(torch.tensor([[0.7, 0.1, 0.2]]), torch.tensor([0])).item() == pytest.approx(0.09 + 0.01 + 0.04)


def test_cross_entropy_to_shares_by_hand() -> None:
    shares = torch.tensor([[0.75, 0.25, 0.0], [0.0, 1.0, 0.0]])
    found = soft_cross_entropy(shares, torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]))
    assert found.tolist() == pytest.approx([1.25 * math.log(2), -math.log(1e-12)])  # a probability of 0 stays finite


def test_a_bin_includes_its_upper_bound() -> None:
    assert reliability(torch.tensor([[0.5, 0.5]]), torch.tensor([0]), bins=10).faces.tolist() == [0] * 4 + [1] + [0] * 5
    faces = reliability(torch.tensor([[0.53, 0.47], [0.54, 0.46]]), torch.tensor([0, 0])).faces
    assert faces.tolist() == [0] * 7 + [1, 1] + [0] * 6  # 8/15 is 0.533
    assert reliability(torch.full((1, 20), 0.05), torch.tensor([0]), bins=10).faces.tolist() == [1] + [0] * 9


@pytest.mark.parametrize("correct", [0.6, 0.97, 0.999])
def test_temperature_makes_the_confidence_the_share_of_correct_faces(correct: float) -> None:
    """Of two classes with a difference of 5 in every face: 1 / (1 + exp(-5 / T)) is the share."""
    labels = (torch.arange(1000) >= 1000 * correct).long()
    expected = 5 / math.log(correct / (1 - correct))
    assert fit_temperature(torch.tensor([[5.0, 0.0]] * 1000), labels) == pytest.approx(expected, rel=1e-6)


def sample(faces: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Logits, and labels sampled from their softmax at `temperature`."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(faces, 7, generator=generator)
    return logits, (logits / temperature).softmax(-1).multinomial(1, generator=generator)[:, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_fitted_temperature_is_the_one_that_labels_were_sampled_at(temperature: float) -> None:
    assert fit_temperature(*sample(40_000, temperature)) == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
def test_fitted_temperature_minimizes_the_negative_log_likelihood(scale: float) -> None:
    logits, labels = sample(500, 2.0)
    logits = (scale * logits).double()
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(scale * fit_temperature(logits / scale, labels), rel=1e-6)
    least = cross_entropy(logits / temperature, labels)
    assert all(cross_entropy(logits / (temperature * by), labels) > least for by in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0))


def test_uninformative_logits_become_uniform() -> None:
    logits = 10 * torch.eye(5).repeat(20, 1)
    labels = (torch.arange(100) + 1) % 5  # certain and never correct
    assert fit_temperature(logits, labels) == pytest.approx(20 * 10)  # the largest: 20 times the range of the logits
    probabilities = (logits / fit_temperature(logits, labels)).softmax(-1)
    assert negative_log_likelihood(probabilities, labels).mean().item() == pytest.approx(math.log(5), abs=0.02)


def test_undetermined_temperature_is_one() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    assert fit_temperature(logits[:0], torch.zeros(0, dtype=torch.long)) == 1
    assert fit_temperature(logits[:, :1], torch.zeros(6, dtype=torch.long)) == 1
    assert fit_temperature(logits, logits.argmax(-1)) == 1
    assert fit_temperature(torch.ones(6, 3), torch.arange(6) % 3) == 1
    assert fit_temperature(logits * torch.nan, torch.arange(6) % 3) == 1
