"""Whether maps are true: what a network loses without the pixels that they name, and what they are worth otherwise.

Each measure is a number a face. Maps that know nothing of the face, chance and a blob in the middle, are measured by
the same ruler: a method that does no better than the blob says no more of a face than where faces are.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, neighbors_weights
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve
from scipy.stats import spearmanr
from torch import Tensor

from emotion.checkpoints.ensemble import Ensemble
from emotion.data.transforms.corruptions import REGIONS, region_mask
from emotion.explainers.explainer import Explainer, seeded
from emotion.models.blocks import FaceNetwork


def sensitivity(explainer: Explainer, faces: Tensor, targets: Tensor, samples: int = 4, radius: float = 0.02) -> Tensor:
    """How far a map moves, as a share of its size, when every pixel changes by up to `radius`, at worst; (N,), or NaN.

    Yeh et al. 2019, https://arxiv.org/abs/1901.09392. Lower is steadier.
    """
    maps = explainer.maps(faces, targets)
    size = maps.flatten(1).norm(dim=1)
    worst = torch.zeros(len(faces))
    generator = torch.Generator().manual_seed(0)
    for _ in range(samples):
        noise = (2 * torch.rand(faces.shape, generator=generator) - 1) * radius
        moved = explainer.maps((faces + noise).clamp(0, 1), targets)
        worst = worst.maximum((moved - maps).flatten(1).norm(dim=1))
    return torch.where(size > 0, worst / size, torch.nan)


def randomisation(explainer: Explainer, faces: Tensor, targets: Tensor, maps: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Rank correlation (N,) of each map with that of the network after its weights were shuffled, part by part.

    Adebayo et al. 2018, https://arxiv.org/abs/1810.03292: a map that stays the same does not show what was learnt. The
    numbers of a parameter change places, which keeps their spread: of the head; of the later half of the blocks
    besides; of all. Batch normalisation keeps its statistics. Nearer 0 is better.
    """
    for name, share in (("head", 0.0), ("later half", 0.5), ("all", 1.0)):
        shuffled = Explainer(shuffle(explainer.ensemble, share), explainer.method, explainer.precision)
        yield name, rank_correlation(maps, shuffled.maps(faces, targets))


def shuffle(ensemble: Ensemble, share: float, seed: int = 0) -> Ensemble:
    """A copy whose members' heads, and so much of their blocks, counted from the head, have shuffled weights."""
    made = copy.deepcopy(ensemble)
    generator = torch.Generator().manual_seed(seed)
    for member in made.members:
        net = member.net
        assert isinstance(net, FaceNetwork)
        depths = net.depths()
        least = max(depths.values()) * (1 - share)
        for name, parameter in net.named_parameters():
            if depths[name] >= least:
                flat = parameter.data.flatten()
                places = torch.randperm(len(flat), generator=generator).to(flat.device)
                parameter.data.copy_(flat[places].view_as(parameter))
    return made


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Spearman's, (N,), of maps (N, H, W) with others; NaN where one of the two is flat and nothing can be said."""
    found = []
    for one, other in zip(maps.flatten(1).numpy(), others.flatten(1).numpy(), strict=True):
        flat = one.min() == one.max() or other.min() == other.max()
        found.append(float("nan") if flat else float(spearmanr(one, other).statistic))
    return torch.tensor(found)


STEPS = 16
"""Equal parts in which a face is taken away or put back."""

ROAD_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the pixels, so many are taken away at a time."""

BLUR = 11, 5.0
"""Kernel and standard deviation, in pixels, of the blurred face that insertion begins with, for faces of 48 pixels."""

Score = Callable[[Tensor], Tensor]  # faces (n, 1 or 3, H, W) to the probability of the class that is explained (n,)


def chance(maps: Tensor, seed: int = 0) -> Tensor:
    """Maps of the same size (N, H, W) whose values are random."""
    return torch.rand(maps.shape, generator=torch.Generator().manual_seed(seed))


def middle(maps: Tensor) -> Tensor:
    """Maps of the same size (N, H, W) that are all one blob in the middle."""
    down, across = (torch.linspace(-1, 1, side) for side in maps.shape[-2:])
    return (-2 * (down[:, None] ** 2 + across**2)).exp().expand_as(maps)


UNKNOWING: Mapping[str, Callable[[Tensor], Tensor]] = {"chance": chance, "middle": middle}
"""Maps that know nothing of the face."""


def deletion(score: Score, faces: Tensor, maps: Tensor) -> Tensor:
    """Probability (N, STEPS + 1) while the pixels that count most go first, to the face's mean grey.

    RISE, Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421, whose grey is that of all pictures. The lower its mean,
    the truer the map.
    """
    grey = faces.mean((2, 3), keepdim=True).expand_as(faces)
    return _exchanged(score, faces, grey, maps)


def insertion(score: Score, faces: Tensor, maps: Tensor) -> Tensor:
    """Probability (N, STEPS + 1) while the pixels that count most come first into the blurred face; higher is truer.

    RISE blurs as many pixels of pictures of 224; here a face is blurred until its expression is gone.
    """
    from torchvision.transforms.v2.functional import gaussian_blur

    scale = faces.shape[-1] / 48
    kernel = 2 * round((BLUR[0] * scale - 1) / 2) + 1
    blurred: Tensor = gaussian_blur(faces, [kernel, kernel], [BLUR[1] * scale] * 2)
    return _exchanged(score, blurred, faces, maps)


def _exchanged(score: Score, before: Tensor, after: Tensor, maps: Tensor) -> Tensor:
    """The score while `before`'s pixels give way to `after`'s, the most important first."""
    rank = _order(maps).argsort(dim=1).view_as(maps)[:, None]
    pixels = maps[0].numel()
    scores = [score(torch.where(rank < pixels * step / STEPS, after, before)) for step in range(STEPS + 1)]
    return torch.stack(scores, 1)


def _filled_in(face: Tensor, kept: Tensor, noise: float = 0.01) -> Tensor:
    """A face (1 or 3, H, W) whose pixels that are not `kept` (H, W) are weighted means of their neighbours.

    As pytorch-grad-cam's imputer, which NumPy 2 warns of when it is given tensors.
    """
    equations, known = NoisyLinearImputer.setup_sparse_system(kept.numpy(), face.numpy(), neighbors_weights)
    solved = torch.from_numpy(spsolve(csc_matrix(equations), known)).float().view(-1, len(face)).T
    filled = face.clone()
    filled[:, kept == 0] = solved + noise * torch.randn(solved.shape)
    return filled


def _order(maps: Tensor) -> Tensor:
    """The pixels (N, H * W) of maps (N, H, W), those that count most first; equal ones in random order."""
    flat = maps.flatten(1)
    shuffled = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(0))
    return shuffled[flat[:, shuffled].argsort(dim=1, descending=True, stable=True)]


def area(curve: Tensor) -> Tensor:
    """Curves (N, STEPS + 1) to the area below each, (N,): the mean of what was measured, the ends half."""
    return torch.trapezoid(curve, dim=1) / (curve.shape[1] - 1)


def road(score: Score, faces: Tensor, maps: Tensor) -> Tensor:
    """Half of what is lost more when the most important pixels go than when the least important do, (N,).

    Rong et al. 2022, https://arxiv.org/abs/2202.00449: what goes is filled in from its surroundings, with a little
    noise, so that the hole itself gives nothing away. Equations and combined score are pytorch-grad-cam's; higher is
    truer. Maps that rank what speaks against the class last, as signed ones do, have the more to gain from it.
    """
    order, pixels, lost = _order(maps), maps[0].numel(), []
    with seeded(0):
        for share in ROAD_SHARES:
            gone = round(share * pixels)
            for sign, some in ((1, order[:, -gone:]), (-1, order[:, :gone])):
                kept = torch.ones(maps.shape).flatten(1).scatter_(1, some, 0.0).view_as(maps)
                filled = torch.stack([_filled_in(face, mask) for face, mask in zip(faces, kept, strict=True)])
                lost.append(sign * score(filled))
    return torch.stack(lost).sum(0) / (2 * len(ROAD_SHARES))


def region_shares(maps: Tensor) -> Mapping[str, Tensor]:
    """What share of what speaks for the class lies in each part of the face and outside all, (N,) each; NaN of none."""
    positive = maps.clamp(min=0)
    total = positive.sum((1, 2))
    masks = {name: region_mask(name, *maps.shape[-2:]) for name in REGIONS}
    shares = {name: (positive * mask).sum((1, 2)) / total for name, mask in masks.items()}
    return shares | {"elsewhere": (positive * ~torch.stack([*masks.values()]).any(0)).sum((1, 2)) / total}


class Truth(NamedTuple):
    """What maps were found to be worth: numbers of so many faces each."""

    measures: Mapping[str, Tensor]  # by name, (N,) or fewer
    curves: Mapping[str, Tensor]  # deletion and insertion: mean probability (STEPS + 1,)


PARTS = 7
"""How often `measure` reports that it has got on; `ranked` does it three times."""


def measure(
    explainer: Explainer,
    faces: Tensor,
    targets: Tensor,
    maps: Tensor,
    sensitive: int,
    got_on: Callable[[], object] = lambda: None,
) -> Truth:
    """Every measure of maps (N, H, W) of faces (N, 1 or 3, H, W) explained as `targets` (N,).

    Sensitivity is that of the first `sensitive` faces.
    """
    found, curves = ranked(explainer, faces, targets, maps, got_on)
    measures = {**found, "sensitivity": sensitivity(explainer, faces[:sensitive], targets[:sensitive])}
    got_on()
    for name, similar in randomisation(explainer, faces, targets, maps):
        measures[f"shuffled {name}"] = similar
        got_on()
    return Truth(measures, curves)


def ranked(
    explainer: Explainer, faces: Tensor, targets: Tensor, maps: Tensor, got_on: Callable[[], object] = lambda: None
) -> Truth:
    """The measures that look at maps alone, wherever they come from."""

    def score(some: Tensor) -> Tensor:
        return explainer.probabilities(some).gather(1, targets[:, None])[:, 0]

    curves = {}
    for name, path in (("deletion", deletion), ("insertion", insertion)):
        curves[name] = path(score, faces, maps)
        got_on()
    measures = {name: area(curve) for name, curve in curves.items()} | {"road": road(score, faces, maps)}
    got_on()
    return Truth({**measures, **region_shares(maps)}, {name: curve.mean(0) for name, curve in curves.items()})
