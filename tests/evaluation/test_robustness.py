import numpy as np
import pytest
import torch
from torch import Tensor

from emotion.evaluation.robustness import robustness
from emotion.evaluation.score import Judged


class Lightness:
    """Takes a face for class 1 where its mean is above the middle, and says which views it was asked for."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.tta: set[str] = set()

    def eval(self) -> None:
        pass

    def probabilities(self, pixels: Tensor, tta: str) -> Tensor:
        self.tta.add(tta)
        light = pixels.float().mean((1, 2)) > 127.5
        return torch.nn.functional.one_hot(light.long(), 2).float()


def test_only_what_a_judge_goes_by_can_mislead_it() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 2
    images = (80 + 80 * labels[:, None, None] + rng.integers(-9, 10, (20, 48, 48))).astype(np.uint8)
    scores = {"tta": "flip", "all": {"accuracy": [1.0, 0.84, 1.0]}}
    rows = np.arange(10, 20)
    judged = Judged(scores, rows, labels[rows], labels[rows], np.ones(10, bool), torch.zeros(0), None)
    judge, steps = Lightness(), []
    found = robustness(judge, images, judged, done=lambda: steps.append(1))  # type: ignore[arg-type]
    of_each = {name: [figure[0] for figure in figures] for name, figures in found["accuracy"].items()}
    assert of_each.pop("brightness") == [1, 1, 1, 0.5, 0.5]  # 80 + 0.2 * 255 is above the middle
    assert set(map(tuple, of_each.values())) == {(1, 1, 1, 1, 1)}
    assert found["mean_corruption_accuracy"] == found["relative"] == pytest.approx(34 / 35)
    assert (len(steps), judge.tta) == (35, {"flip"})
