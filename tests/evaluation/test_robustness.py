import numpy as np
import pytest
import torch
from torch import Tensor

from emotion.evaluation.robustness import robustness
from emotion.evaluation.score import EvaluationResult


class BrightnessClassifier:
    """Predicts class 1 for faces with a mean above 127.5, and records the TTAs that it is called with."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.tta: set[str] = set()

    def eval(self) -> None:
        pass

    def probabilities(self, pixels: Tensor, tta: str) -> Tensor:
        self.tta.add(tta)
        bright = pixels.float().mean((1, 2)) > 127.5
        return torch.nn.functional.one_hot(bright.long(), 2).float()


def test_only_brightness_misleads_a_brightness_classifier() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 2
    images = (80 + 80 * labels[:, None, None] + rng.integers(-9, 10, (20, 48, 48))).astype(np.uint8)
    scores = {"tta": "flip", "all": {"accuracy": [0.8, 0.7, 0.9]}}
    rows = np.arange(10, 20)
    result = EvaluationResult(scores, rows, labels[rows], labels[rows], np.ones(10, bool), torch.zeros(0), None)
    classifier = BrightnessClassifier()
    found = robustness(classifier, images, result)  # type: ignore[arg-type]
    accuracy = {name: [value for value, _, _ in intervals] for name, intervals in found["accuracy"].items()}
    assert accuracy.pop("brightness") == [1, 1, 1, 0.5, 0.5]  # 80 + 0.2 * 255 is above 127.5
    assert set(map(tuple, accuracy.values())) == {(1, 1, 1, 1, 1)}
    assert found["mean_corruption_accuracy"] == pytest.approx(34 / 35)
    assert found["relative"] == pytest.approx(34 / 35 / 0.8)
    assert classifier.tta == {"flip"}
