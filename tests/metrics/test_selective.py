import pytest
import torch

from emotion.metrics.selective import num_answered, risk_by_coverage


def test_risk_is_the_error_rate_of_the_most_confident() -> None:
    probabilities = torch.tensor([[0.6, 0.4], [0.1, 0.9], [0.7, 0.3], [0.8, 0.2]])
    labels = torch.tensor([1, 1, 1, 0])  # by confidence: correct, correct, wrong, wrong
    assert risk_by_coverage(probabilities, labels).tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])


def test_equal_confidences_share_their_errors_in_any_order() -> None:
    probabilities, labels = torch.tensor([[0.8, 0.2]] * 4), torch.tensor([0, 1, 0, 0])
    for order in (torch.arange(4), torch.tensor([1, 0, 3, 2])):
        assert risk_by_coverage(probabilities, labels[order]).tolist() == pytest.approx([0.25] * 4)


def test_risk_at_full_coverage_is_the_error_rate() -> None:
    probabilities, labels = torch.rand(200, 5).softmax(-1), torch.arange(200) % 5
    wrong = (probabilities.argmax(-1) != labels).double().mean()
    assert risk_by_coverage(probabilities, labels)[-1].item() == pytest.approx(wrong.item())


@pytest.mark.parametrize(("coverage", "faces", "expected"), [(0.5, 10, 5), (0.5, 11, 6), (0.9, 10, 9), (0.8, 0, 0)])
def test_coverage_is_rounded_up_to_faces(coverage: float, faces: int, expected: int) -> None:
    assert num_answered(coverage, faces) == expected
