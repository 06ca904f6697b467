import numpy as np
import pytest
import torch
from torch import Tensor

from emotion.classifier import EmotionClassifier
from emotion.data.transforms.corruptions import REGIONS, region_mask
from emotion.explainers import faithfulness
from emotion.explainers.attention import Attention
from emotion.explainers.explainer import Explainer
from emotion.explainers.gradcam import GradCam
from emotion.explainers.occlusion import Occlusion
from tests.explainers.conftest import CORNER, SIDE, alone

BRIGHT = torch.zeros(4, dtype=torch.long)


@pytest.fixture
def explainer(corner: EmotionClassifier) -> Explainer:
    return Explainer(alone(corner), Occlusion())


@pytest.fixture
def known(bright_faces: Tensor) -> Tensor:
    """The maps that tell the truth about the corner network."""
    maps = torch.zeros(4, SIDE, SIDE)
    maps[:, :CORNER, :CORNER] = 1
    return maps


def test_the_true_map_is_found_truer_than_chance_and_the_contrary_less_true(
    explainer: Explainer, bright_faces: Tensor, known: Tensor
) -> None:
    dark_elsewhere = bright_faces * (0.2 + 0.8 * known[:, None])  # so that the mean grey is not the corner's
    true, false, by_chance = (
        faithfulness.ranked(explainer, dark_elsewhere, BRIGHT, maps).measures
        for maps in (known, -known, faithfulness.chance(known))
    )
    assert (true["deletion"] < by_chance["deletion"]).all()
    assert (by_chance["deletion"] < false["deletion"]).all()
    assert (true["insertion"] > by_chance["insertion"]).all()
    assert (true["road"] > by_chance["road"] + 0.01).all()
    assert (false["road"] < by_chance["road"] - 0.01).all()


def test_curves_lead_from_the_face_to_grey_and_from_blurred_to_the_face(
    explainer: Explainer, bright_faces: Tensor, known: Tensor
) -> None:
    def score(faces: Tensor) -> Tensor:
        return explainer.probabilities(faces)[:, 0]

    taken, put = (path(score, bright_faces, known) for path in (faithfulness.deletion, faithfulness.insertion))
    assert taken.shape == put.shape == (4, faithfulness.STEPS + 1)
    grey = bright_faces.mean((2, 3), keepdim=True).expand_as(bright_faces)
    assert taken[:, 0].equal(score(bright_faces))
    assert taken[:, -1].equal(score(grey))
    assert put[:, -1].equal(score(bright_faces))


def test_the_area_below_a_straight_line_is_its_middle() -> None:
    assert faithfulness.area(torch.linspace(0, 1, 17)[None]).item() == pytest.approx(0.5)


def test_equal_values_are_taken_in_random_order_and_larger_ones_first() -> None:
    order = faithfulness._order(torch.tensor([[[0.0, 0.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 0.0]]]))[0].tolist()
    assert order[:2] == [4, 5]
    assert order[2:] != sorted(order[2:])
    assert sorted(order) == list(range(9))


def test_shares_of_the_regions_of_an_even_map_are_their_areas() -> None:
    shares = faithfulness.region_shares(torch.ones(2, 48, 48))
    for name in REGIONS:
        torch.testing.assert_close(shares[name], region_mask(name, 48, 48).float().mean().expand(2))
    torch.testing.assert_close(sum(shares.values()), torch.ones(2))


def test_a_map_of_the_mouth_alone_lies_on_the_mouth() -> None:
    shares = faithfulness.region_shares(region_mask("mouth", 48, 48).float()[None] - 0.0)
    assert {name: share.item() for name, share in shares.items() if share} == {"mouth": 1.0}


def test_regions_do_not_overlap() -> None:
    masks = torch.stack([region_mask(name, 96, 96) for name in REGIONS])
    assert masks.sum(0).max() == 1


def test_a_map_that_does_not_change_has_no_sensitivity_and_stays_when_weights_are_shuffled(
    corner: EmotionClassifier, bright_faces: Tensor
) -> None:
    steady = Explainer(alone(corner), Attention())
    assert faithfulness.sensitivity(steady, bright_faces, BRIGHT).tolist() == [0.0] * 4
    maps = steady.maps(bright_faces, BRIGHT)
    for _, alike in faithfulness.randomisation(steady, bright_faces, BRIGHT, maps):
        torch.testing.assert_close(alike, torch.ones(4))


def test_shuffling_changes_the_head_first_and_keeps_every_number(corner: EmotionClassifier) -> None:
    ensemble = alone(corner)
    for share, changed in ((0.0, {"head.2.weight"}), (1.0, {"head.2.weight", "features.0.conv.weight"})):
        net = faithfulness.shuffle(ensemble, share, seed=1).members[0].net
        pairs = zip(corner.net.named_parameters(), net.named_parameters(), strict=True)
        found = {name for (name, one), (_, other) in pairs if not one.equal(other)}
        assert found == changed  # the convolution's weights are all alike
        for one, other in zip(corner.net.parameters(), net.parameters(), strict=True):
            assert one.flatten().sort().values.equal(other.flatten().sort().values)


def test_rank_correlation_of_equal_contrary_and_flat_maps() -> None:
    maps = torch.arange(9.0).view(1, 3, 3)
    found = faithfulness.rank_correlation(maps.repeat(3, 1, 1), torch.cat([maps**2, -maps, torch.ones(1, 3, 3)]))
    assert found.tolist() == pytest.approx([1, -1, float("nan")], nan_ok=True)


def test_of_a_blank_map_nothing_is_known(corner: EmotionClassifier, bright_faces: Tensor) -> None:
    dark = Explainer(alone(corner), GradCam())
    dark_faces = torch.zeros_like(bright_faces)
    maps = dark.maps(dark_faces, BRIGHT)
    assert not maps.any()
    assert faithfulness.sensitivity(dark, dark_faces, BRIGHT).isnan().all()
    assert faithfulness.rank_correlation(maps, bright_faces[:, 0]).isnan().all()
    assert all(share.isnan().all() for share in faithfulness.region_shares(maps).values())


def test_an_ensembles_map_is_the_mean_of_its_members_own_of_size_one(
    corner: EmotionClassifier, bright_faces: Tensor
) -> None:
    import copy

    other = copy.deepcopy(corner)
    other.net.head[2].weight.data.neg_()
    together = alone(corner)
    together.loaded = (*together.loaded, together.loaded[0]._replace(classifier=other))
    maps = [Explainer(one, Occlusion()).maps(bright_faces, BRIGHT) for one in (alone(corner), alone(other), together)]
    scaled = [one / one.abs().amax((1, 2), keepdim=True) for one in maps[:2]]
    torch.testing.assert_close(maps[2], sum(scaled) / 2)


def test_maps_lie_where_the_network_looked_when_it_sees_the_middle_alone(corner: EmotionClassifier) -> None:
    from emotion.data.transforms.preprocess import Preprocess

    corner.preprocess = Preprocess(48, 1, [0.0], [1.0], zoom=1.5)
    faces = torch.full((1, 1, 96, 96), 0.95)
    maps = Explainer(alone(corner), GradCam()).maps(faces, BRIGHT[:1])
    seen = np.flatnonzero(maps[0].numpy().max(0) > 0.5)  # 72 pixels wide, its middle 48, of which the first 24 count
    assert maps.shape == (1, 96, 96)
    assert abs(seen.min() - 96 * 12 / 72) <= 2
    assert abs(seen.max() - 96 * 36 / 72) <= 2
