import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from emotion.classifier import EmotionClassifier
from emotion.data.transforms.corruptions import REGIONS, region_mask
from emotion.data.transforms.preprocess import Preprocess
from emotion.explainers import faithfulness
from emotion.explainers.attention import Attention
from emotion.explainers.explainer import EnsembleExplainer
from emotion.explainers.gradcam import GradCam
from emotion.explainers.occlusion import Occlusion
from tests.explainers.conftest import CORNER, SIDE, ensemble_of

BRIGHT = torch.zeros(4, dtype=torch.long)


@pytest.fixture
def explainer(corner: EmotionClassifier) -> EnsembleExplainer:
    return EnsembleExplainer(ensemble_of(corner), Occlusion())


@pytest.fixture
def correct_maps(bright_faces: Tensor) -> Tensor:
    """The correct maps of the corner network."""
    maps = torch.zeros(4, SIDE, SIDE)
    maps[:, :CORNER, :CORNER] = 1
    return maps


def test_measures_rank_correct_above_random_above_inverted_maps(
    explainer: EnsembleExplainer, bright_faces: Tensor, correct_maps: Tensor
) -> None:
    faces = bright_faces * (0.2 + 0.8 * correct_maps[:, None])  # so that the mean gray is not the corner's
    correct, inverted, random = (
        faithfulness.score_ranking(explainer, faces, BRIGHT, maps).measures
        for maps in (correct_maps, -correct_maps, faithfulness.chance(correct_maps))
    )
    assert (correct["deletion"] < random["deletion"]).all()
    assert (random["deletion"] < inverted["deletion"]).all()
    assert (correct["insertion"] > random["insertion"]).all()
    assert (correct["road"] > random["road"] + 0.01).all()
    assert (inverted["road"] < random["road"] - 0.01).all()


def test_curves_run_from_face_to_gray_and_from_blur_to_face(
    explainer: EnsembleExplainer, bright_faces: Tensor, correct_maps: Tensor
) -> None:
    def score(faces: Tensor) -> Tensor:
        return explainer.probabilities(faces)[:, 0]

    deleted, inserted = (
        curve(score, bright_faces, correct_maps) for curve in (faithfulness.deletion, faithfulness.insertion)
    )
    assert deleted.shape == inserted.shape == (4, faithfulness.STEPS + 1)
    gray = bright_faces.mean((2, 3), keepdim=True).expand_as(bright_faces)
    assert deleted[:, 0].equal(score(bright_faces))
    assert deleted[:, -1].equal(score(gray))
    assert inserted[:, -1].equal(score(bright_faces))


def test_area_of_a_straight_line_is_its_midpoint() -> None:
    assert faithfulness.area(torch.linspace(0, 1, 17)[None]).item() == pytest.approx(0.5)


def test_pixels_are_ranked_by_value_with_random_ties() -> None:
    order = faithfulness._rank_pixels(torch.tensor([[[0.0, 0.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 0.0]]]))[0].tolist()
    assert order[:2] == [4, 5]
    assert order[2:] != sorted(order[2:])
    assert sorted(order) == list(range(9))


def test_region_shares_are_areas_on_even_maps_and_1_on_a_map_of_one_region() -> None:
    shares = faithfulness.region_shares(torch.ones(2, 48, 48))
    for name in REGIONS:
        torch.testing.assert_close(shares[name], region_mask(name, 48, 48).float().mean().expand(2))
    torch.testing.assert_close(sum(shares.values()), torch.ones(2))
    mouth = faithfulness.region_shares(region_mask("mouth", 48, 48).float()[None])
    assert {name: share.item() for name, share in mouth.items() if share} == {"mouth": 1.0}
    assert torch.stack([region_mask(name, 96, 96) for name in REGIONS]).sum(0).max() == 1  # no overlap


def test_constant_maps_have_no_sensitivity_and_survive_shuffled_weights(
    corner: EmotionClassifier, bright_faces: Tensor
) -> None:
    constant = EnsembleExplainer(ensemble_of(corner), Attention())
    assert faithfulness.sensitivity(constant, bright_faces, BRIGHT).tolist() == [0.0] * 4
    maps = constant.maps(bright_faces, BRIGHT)
    for _, correlation in faithfulness.randomization(constant, bright_faces, BRIGHT, maps):
        torch.testing.assert_close(correlation, torch.ones(4))


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.0, {"head.2.weight"}), (1.0, {"head.2.weight", "features.0.conv.weight"})]
)
def test_shuffling_starts_at_the_head_and_permutes_values(
    fraction: float, expected: set[str], corner: EmotionClassifier
) -> None:
    shuffled = faithfulness.shuffle_weights(ensemble_of(corner), fraction, seed=1).members[0].net
    pairs = list(zip(corner.net.named_parameters(), shuffled.parameters(), strict=True))
    changed = {name for (name, before), after in pairs if not before.equal(after)}
    assert changed == expected  # the weights of the other convolution are all equal
    assert all(before.flatten().sort().values.equal(after.flatten().sort().values) for (_, before), after in pairs)


def test_rank_correlation_of_equal_inverted_and_constant_maps() -> None:
    maps = torch.arange(9.0).view(1, 3, 3)
    others = torch.cat([maps**2, -maps, torch.ones(1, 3, 3)])
    correlation = faithfulness.rank_correlation(maps.repeat(3, 1, 1), others)
    assert correlation.tolist() == pytest.approx([1, -1, float("nan")], nan_ok=True)


def test_measures_of_blank_maps_are_nan(corner: EmotionClassifier, bright_faces: Tensor) -> None:
    explainer, dark_faces = EnsembleExplainer(ensemble_of(corner), GradCam()), torch.zeros_like(bright_faces)
    maps = explainer.maps(dark_faces, BRIGHT)
    assert not maps.any()
    assert faithfulness.sensitivity(explainer, dark_faces, BRIGHT).isnan().all()
    assert faithfulness.rank_correlation(maps, bright_faces[:, 0]).isnan().all()
    assert all(share.isnan().all() for share in faithfulness.region_shares(maps).values())


def test_ensemble_map_is_the_mean_of_normalized_member_maps(corner: EmotionClassifier, bright_faces: Tensor) -> None:
    other = copy.deepcopy(corner)
    other.net.head[2].weight.data.neg_()
    first, second, both = (
        EnsembleExplainer(ensemble_of(*members), Occlusion()).maps(bright_faces, BRIGHT)
        for members in ([corner], [other], [corner, other])
    )
    normalized = [maps / maps.abs().amax((1, 2), keepdim=True) for maps in (first, second)]
    torch.testing.assert_close(both, sum(normalized) / 2)


def test_maps_of_a_center_crop_are_placed_on_the_whole_face(corner: EmotionClassifier) -> None:
    corner.preprocess = Preprocess(48, 1, [0.0], [1.0], zoom=1.5)
    faces = torch.full((1, 1, 96, 96), 0.95)
    maps = EnsembleExplainer(ensemble_of(corner), GradCam()).maps(faces, BRIGHT[:1])
    columns = np.flatnonzero(maps[0].numpy().max(0) > 0.5)  # resized to 72, cropped to 48, of which the first 24 count
    assert maps.shape == (1, 96, 96)
    assert abs(columns.min() - 96 * 12 / 72) <= 2
    assert abs(columns.max() - 96 * 36 / 72) <= 2
