"""Test-time augmentation: views shared by several kinds are evaluated once, and each kind has its own mean."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from emotion.checkpoints import ensemble
from emotion.data.transforms.tta import TTA, flip, mean_probabilities, ten_crop, tta_logits, tta_logits_by_name
from emotion.evaluation.score import score_rows
from tests.images import FACES


def test_flip_adds_the_mirror_image() -> None:
    faces = torch.rand(2, 1, 12, 12)
    first, second = flip(faces)
    assert first.equal(faces)
    assert second.flip(-1).equal(faces)


def test_ten_crop_has_corners_and_centre_and_their_mirror_images() -> None:
    faces = torch.rand(2, 1, 48, 48)
    crops = reference.five_crop(faces, [44, 44])
    enlarged = [reference.resize(crop, [48, 48], antialias=False) for crop in crops]
    expected = torch.stack([view for crop in enlarged for view in (crop, crop.flip(-1))])
    torch.testing.assert_close(torch.stack(ten_crop(faces)), expected)


@pytest.mark.parametrize("tta", TTA)
def test_probabilities_are_averaged(tta: str) -> None:
    faces = torch.rand(3, 1, 48, 48)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48 * 48, 4))
    expected = sum(net(view).softmax(1) for view in TTA[tta](faces)) / len(TTA[tta](faces))
    torch.testing.assert_close(mean_probabilities(tta_logits(net, faces, tta)), expected)
    tempered = sum((net(view) / 2).softmax(1) for view in TTA[tta](faces)) / len(TTA[tta](faces))
    torch.testing.assert_close(mean_probabilities(tta_logits(net, faces, tta), 2.0), tempered)


def test_a_shared_view_is_evaluated_once() -> None:
    evaluated: list[Tensor] = []

    def net(faces: Tensor) -> Tensor:
        evaluated.append(faces)
        return faces.flatten(1)[:, :3]

    faces = torch.rand(2, 1, 12, 12)
    logits = tta_logits_by_name(net, faces, ("none", "flip", "ten_crop"))
    assert len(evaluated) == 2 + 10
    for name, views in logits.items():
        assert len(views) == len(TTA[name](faces))
        assert views.equal(tta_logits(net, faces, name))


def test_several_kinds_at_once_give_the_scores_of_each_alone() -> None:
    classifiers = ensemble.load_ensemble("fast_cnn")
    rows, labels = np.arange(6), np.array([3, 0, 4, 1, 5, 2])
    both = score_rows(classifiers, FACES, labels, rows, rows[:2], ("none", "flip"))
    for tta, result in both.items():
        alone = score_rows(classifiers, FACES, labels, rows, rows[:2], (tta,))[tta]
        assert result.probabilities.equal(alone.probabilities)
        assert result.scores == alone.scores
        logits = classifiers.members[0].logits(torch.from_numpy(FACES), tta)
        torch.testing.assert_close(result.probabilities, mean_probabilities(logits, classifiers.temperatures[0]))
