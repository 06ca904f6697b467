"""Test-time augmentation: views shared by several kinds are evaluated once, and each kind has its own mean."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from emotion.checkpoints import ensemble
from emotion.data.transforms.preprocess import Preprocess
from emotion.data.transforms.tta import (
    TTA,
    flip,
    mean_probabilities,
    shifted,
    ten_crop,
    tta_logits,
)
from emotion.evaluation.score import score_rows
from tests.images import FACES


def unprepared(faces: Tensor) -> Tensor:
    return faces


def test_flip_adds_the_mirror_image() -> None:
    faces = torch.rand(2, 1, 12, 12)
    first, second = flip(faces, unprepared)
    assert first.equal(faces)
    assert second.flip(-1).equal(faces)


def test_ten_crop_has_corners_and_center_and_their_mirror_images() -> None:
    faces = torch.rand(2, 1, 48, 48)
    crops = reference.five_crop(faces, [44, 44])
    enlarged = [reference.resize(crop, [48, 48], antialias=False) for crop in crops]
    expected = torch.stack([view for crop in enlarged for view in (crop, crop.flip(-1))])
    torch.testing.assert_close(torch.stack(ten_crop(faces, unprepared)), expected)


def test_shifts_of_a_center_crop_are_native_pixels() -> None:
    """grey40 sees the central 40 of 48 pixels, so a shift by 3 leaves no pixel to repeat."""
    preprocess = Preprocess(40, 1, [0.5], [0.25], zoom=1.2)
    faces = torch.rand(2, 1, 48, 48)
    expected = [
        view
        for top, left in ((4, 4), (1, 1), (1, 7), (7, 1), (7, 7))
        for crop in [(faces[..., top : top + 40, left : left + 40] - 0.5) / 0.25]
        for view in (crop, crop.flip(-1))
    ]
    views = shifted(faces, preprocess.prepare)
    assert len(views) == len(expected)
    assert all(view.equal(other) for view, other in zip(views, expected, strict=True))


def test_shifts_of_a_whole_face_repeat_its_edge() -> None:
    rows = torch.arange(32.0).view(1, 1, 32, 1).expand(1, 1, 32, 32)
    columns = [view[0, 0, :, 0].tolist() for view in shifted(rows, unprepared)[2::2]]
    up, down = [0, 0, *range(30)], [*range(2, 32), 31, 31]
    assert columns == [up, up, down, down]


@pytest.mark.parametrize("tta", TTA)
def test_probabilities_are_averaged(tta: str) -> None:
    faces = torch.rand(3, 1, 48, 48)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48 * 48, 4))
    views = TTA[tta](faces, unprepared)
    logits = tta_logits(net, unprepared, faces, [tta])[tta]
    torch.testing.assert_close(mean_probabilities(logits), sum(net(view).softmax(1) for view in views) / len(views))
    tempered = sum((net(view) / 2).softmax(1) for view in views) / len(views)
    torch.testing.assert_close(mean_probabilities(logits, 2.0), tempered)


def test_a_shared_view_is_evaluated_once() -> None:
    evaluated: list[Tensor] = []

    def net(faces: Tensor) -> Tensor:
        evaluated.append(faces)
        return faces.flatten(1)[:, :3]

    faces = torch.rand(2, 1, 16, 16)
    logits = tta_logits(net, torch.neg, faces, ("none", "flip", "shifted", "ten_crop"))
    assert len(evaluated) == 1 + 1 + 9 + 10
    for name, views in logits.items():
        assert len(views) == len(TTA[name](faces, torch.neg))
        assert views.equal(tta_logits(net, torch.neg, faces, [name])[name])


def test_several_kinds_at_once_give_the_scores_of_each_alone() -> None:
    classifiers = ensemble.load_ensemble("fast_cnn")
    rows, labels = np.arange(6), np.array([3, 0, 4, 1, 5, 2])
    both = score_rows(classifiers, FACES, labels, rows, rows[:2], ("none", "flip"))
    for tta, result in both.items():
        alone = score_rows(classifiers, FACES, labels, rows, rows[:2], (tta,))[tta]
        assert result.probabilities.equal(alone.probabilities)
        assert result.scores == alone.scores
        logits = classifiers.members[0].logits(torch.from_numpy(FACES), [tta])[tta]
        torch.testing.assert_close(result.probabilities, mean_probabilities(logits, classifiers.temperatures[0]))
