import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from emotion.metrics.calibration import (
    brier,
    expected_calibration_error,
    fitted_temperature,
    negative_log_likelihood,
    reliability,
)


def test_calibration_error_of_two_bins_by_hand() -> None:
    # confidence 0.6 with half right, twice as many faces as confidence 0.9 with all right: (2 * 0.1 + 1 * 0.1) / 3
    probabilities = torch.tensor([[0.6, 0.4]] * 4 + [[0.1, 0.9]] * 2)
    labels = torch.tensor([0, 0, 1, 1, 1, 1])
    assert expected_calibration_error(probabilities, labels).item() == pytest.approx(0.1, abs=1e-6)


def test_sure_and_right_is_perfectly_calibrated_and_sure_and_wrong_not_at_all() -> None:
    sure = torch.eye(3)
    assert expected_calibration_error(sure, torch.arange(3)) == 0
    assert expected_calibration_error(sure, (torch.arange(3) + 1) % 3) == 1
    assert brier(sure, torch.arange(3)).tolist() == [0, 0, 0]
    assert brier(sure, (torch.arange(3) + 1) % 3).tolist() == [2, 2, 2]


def test_one_bin_is_the_gap_between_mean_confidence_and_accuracy() -> None:
    probabilities = torch.rand(500, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)
    labels = torch.arange(500) % 4
    gap = probabilities.amax(-1).mean() - (probabilities.argmax(-1) == labels).float().mean()
    assert expected_calibration_error(probabilities, labels, bins=1).item() == pytest.approx(gap.abs().item(), abs=1e-6)


def test_likelihood_is_the_cross_entropy_and_stays_finite() -> None:
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 4
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert negative_log_likelihood(logits.softmax(-1), labels).mean().item() == pytest.approx(expected.item(), abs=1e-5)
    assert negative_log_likelihood(torch.tensor([[1.0, 0.0]]), torch.tensor([1])).isfinite().all()


def test_brier_of_an_even_guess() -> None:
    assert brier(torch.full((1, 4), 0.25), torch.tensor([2])).item() == pytest.approx(0.75)


def test_ranges_of_confidence_by_hand() -> None:
    probabilities = torch.tensor([[0.6, 0.4]] * 4 + [[0.1, 0.9]] * 2)
    found = reliability(probabilities, torch.tensor([0, 0, 1, 1, 1, 1]), bins=10)
    assert found.faces.tolist() == [0, 0, 0, 0, 0, 4, 0, 0, 2, 0]
    assert found.accuracy[[5, 8]].tolist() == [0.5, 1]
    assert found.confidence[[5, 8]].tolist() == pytest.approx([0.6, 0.9])


def drawn(faces: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Logits, and labels drawn from what they say at `temperature`."""
    chance = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(faces, 7, generator=chance)
    return logits, (logits / temperature).softmax(-1).multinomial(1, generator=chance)[:, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_at_is_found(temperature: float) -> None:
    assert fitted_temperature(*drawn(40_000, temperature)) == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
def test_no_other_temperature_has_less_negative_log_likelihood(scale: float) -> None:
    logits, labels = drawn(500, 2.0)
    logits = (scale * logits).double()
    found = fitted_temperature(logits, labels)
    assert found == pytest.approx(scale * fitted_temperature(logits / scale, labels), rel=1e-6)
    least = cross_entropy(logits / found, labels)
    assert all(cross_entropy(logits / (found * by), labels) > least for by in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0))


def test_logits_that_say_nothing_of_the_labels_are_flattened() -> None:
    logits = 10 * torch.eye(5).repeat(20, 1)
    labels = (torch.arange(100) + 1) % 5  # sure, and never right
    found = (logits / fitted_temperature(logits, labels)).softmax(-1)
    assert negative_log_likelihood(found, labels).mean().item() == pytest.approx(math.log(5), abs=0.02)


def test_faces_that_do_not_tell_leave_the_temperature_at_one() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    assert fitted_temperature(logits[:0], torch.zeros(0, dtype=torch.long)) == 1
    assert fitted_temperature(logits[:, :1], torch.zeros(6, dtype=torch.long)) == 1
    assert fitted_temperature(logits, logits.argmax(-1)) == 1
    assert fitted_temperature(torch.ones(6, 3), torch.arange(6) % 3) == 1
    assert fitted_temperature(logits * torch.nan, torch.arange(6) % 3) == 1
