"""Test-time views: what several kinds of them share is asked once, and each has its own mean."""

import numpy as np
import torch
from torch import Tensor

from emotion.checkpoints import ensemble
from emotion.data.transforms.tta import TTA, mean_probabilities, tta_logits, tta_logits_by_name
from emotion.evaluation.score import score_rows
from tests.images import FACES


def test_a_view_that_several_share_is_asked_once() -> None:
    asked: list[Tensor] = []

    def net(faces: Tensor) -> Tensor:
        asked.append(faces)
        return faces.flatten(1)[:, :3]

    faces = torch.rand(2, 1, 12, 12)
    found = tta_logits_by_name(net, faces, ("none", "flip", "ten_crop"))
    assert len(asked) == 2 + 10
    for name, answers in found.items():
        assert len(answers) == len(TTA[name](faces))
        assert answers.equal(tta_logits(net, faces, name))


def test_faces_judged_in_two_ways_at_once_are_judged_as_in_each() -> None:
    judge = ensemble.load_ensemble("fast_cnn")
    rows, labels = np.arange(6), np.array([3, 0, 4, 1, 5, 2])
    both = score_rows(judge, FACES, labels, rows, rows[:2], ("none", "flip"))
    for tta, judged in both.items():
        alone = score_rows(judge, FACES, labels, rows, rows[:2], (tta,))[tta]
        assert judged.probabilities.equal(alone.probabilities)
        assert judged.scores == alone.scores
        expected = mean_probabilities(judge.members[0].logits(torch.from_numpy(FACES), tta), judge.temperatures[0])
        torch.testing.assert_close(judged.probabilities, expected)
