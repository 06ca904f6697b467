import pytest
import torch

from emotion.calibration import brier, expected_calibration_error, negative_log_likelihood


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
