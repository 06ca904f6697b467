import pytest
import torch

from emotion.metrics.selective import answered, risk_by_coverage


def test_risk_rises_with_each_wrong_answer() -> None:
    probabilities = torch.tensor([[0.6, 0.4], [0.1, 0.9], [0.7, 0.3], [0.8, 0.2]])
    risk = risk_by_coverage(probabilities, torch.tensor([1, 1, 1, 0]))  # by confidence: right, right, wrong, wrong
    assert risk.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])


def test_equally_sure_faces_share_their_mistakes_in_whatever_order_they_come() -> None:
    probabilities, labels = torch.tensor([[0.8, 0.2]] * 4), torch.tensor([0, 1, 0, 0])
    for order in (torch.arange(4), torch.tensor([1, 0, 3, 2])):
        assert risk_by_coverage(probabilities, labels[order]).tolist() == pytest.approx([0.25] * 4)


def test_all_faces_risk_what_is_wrong_of_all() -> None:
    probabilities, labels = torch.rand(200, 5).softmax(-1), torch.arange(200) % 5
    wrong = (probabilities.argmax(-1) != labels).double().mean()
    assert risk_by_coverage(probabilities, labels)[-1].item() == pytest.approx(wrong.item())


@pytest.mark.parametrize(("coverage", "faces", "expected"), [(0.5, 10, 5), (0.5, 11, 6), (0.9, 10, 9), (0.8, 0, 0)])
def test_a_coverage_is_so_many_faces(coverage: float, faces: int, expected: int) -> None:
    assert answered(coverage, faces) == expected
