"""Faithfulness of attribution maps: what the network loses without the pixels that a map marks as important.

Every measure is one number per face. Two baselines that ignore the face, random maps and a blob in the center, are
measured in the same way: an explainer that does no better than the blob says no more than where faces are.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scipy.stats import spearmanr
from torch import Tensor

from emotion.checkpoints.ensemble import Ensemble
from emotion.data.transforms.corruptions import REGIONS, region_mask
from emotion.explainers.explainer import EnsembleExplainer, seeded
from emotion.models.blocks import FaceNetwork

STEPS = 16
"""Equal parts in which a face is deleted or inserted."""

ROAD_FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Fractions of the pixels that ROAD removes."""

BLUR_KERNEL, BLUR_SIGMA = 11, 5.0
"""Blur of the face that insertion starts from, in pixels of a 48-pixel face."""

RANKING_STEPS, SCORING_STEPS = 3, 7
"""Numbers of progress reports by `score_ranking` and `score_maps`."""

Score = Callable[[Tensor], Tensor]
"""Faces (n, 1 or 3, H, W) to the probability of the target class (n,)."""


class FaithfulnessScores(NamedTuple):
    """The measures of a set of maps, by name."""

    measures: Mapping[str, Tensor]  # one value per face, (N,) or fewer; NaN where a map is blank
    curves: Mapping[str, Tensor]  # mean probability (STEPS + 1,) of deletion and insertion


def score_maps(
    explainer: EnsembleExplainer,
    faces: Tensor,
    targets: Tensor,
    maps: Tensor,
    num_sensitivity: int,
    progress: Callable[[], object] = lambda: None,
) -> FaithfulnessScores:
    """Compute every measure of the maps (N, H, W) of faces (N, 1 or 3, H, W) and target classes (N,).

    Sensitivity, which explains each face several times, is limited to the first `num_sensitivity` faces.
    """
    ranking, curves = score_ranking(explainer, faces, targets, maps, progress)
    measures = {
        **ranking,
        "sensitivity": sensitivity(explainer, faces[:num_sensitivity], targets[:num_sensitivity]),
    }
    progress()
    for name, correlation in randomization(explainer, faces, targets, maps):
        measures[f"shuffled {name}"] = correlation
        progress()
    return FaithfulnessScores(measures, curves)


def score_ranking(
    explainer: EnsembleExplainer,
    faces: Tensor,
    targets: Tensor,
    maps: Tensor,
    progress: Callable[[], object] = lambda: None,
) -> FaithfulnessScores:
    """Compute the measures that depend only on the maps, not on the explainer."""

    def score(faces: Tensor) -> Tensor:
        return explainer.probabilities(faces).gather(1, targets[:, None])[:, 0]

    curves = {}
    for name, curve in (("deletion", deletion), ("insertion", insertion)):
        curves[name] = curve(score, faces, maps)
        progress()
    measures = {name: area(curve) for name, curve in curves.items()} | {"road": road(score, faces, maps)}
    progress()
    means = {name: curve.mean(0) for name, curve in curves.items()}
    return FaithfulnessScores({**measures, **region_shares(maps)}, means)


def chance(maps: Tensor, seed: int = 0) -> Tensor:
    """Return random maps of the same shape (N, H, W)."""
    return torch.rand(maps.shape, generator=torch.Generator().manual_seed(seed))


def center(maps: Tensor) -> Tensor:
    """Return maps of the same shape (N, H, W) with one blob in the center."""
    y, x = (torch.linspace(-1, 1, side) for side in maps.shape[-2:])
    return (-2 * (y[:, None] ** 2 + x**2)).exp().expand_as(maps)


BASELINES: Mapping[str, Callable[[Tensor], Tensor]] = {"chance": chance, "center": center}
"""Maps that do not depend on the face."""


def deletion(score: Score, faces: Tensor, maps: Tensor) -> Tensor:
    """Return the probability (N, STEPS + 1) while pixels, most important first, become the face's mean gray.

    RISE, Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421, which uses the mean gray of the data set. Lower is
    better.
    """
    gray = faces.mean((2, 3), keepdim=True).expand_as(faces)
    return _replace_pixels(score, faces, gray, maps)


def insertion(score: Score, faces: Tensor, maps: Tensor) -> Tensor:
    """Return the probability (N, STEPS + 1) while pixels, most important first, enter the blurred face.

    RISE blurs images of 224 pixels as much; here a face is blurred until its expression is gone. Higher is better.
    """
    from torchvision.transforms.v2.functional import gaussian_blur

    scale = faces.shape[-1] / 48
    kernel = 2 * round((BLUR_KERNEL * scale - 1) / 2) + 1
    blurred: Tensor = gaussian_blur(faces, [kernel, kernel], [BLUR_SIGMA * scale] * 2)
    return _replace_pixels(score, blurred, faces, maps)


def area(curve: Tensor) -> Tensor:
    """Return the area (N,) below curves (N, STEPS + 1) over [0, 1]."""
    return torch.trapezoid(curve, dim=1) / (curve.shape[1] - 1)


def road(score: Score, faces: Tensor, maps: Tensor) -> Tensor:
    """Return half the difference (N,) between removing the least and the most important pixels, in probability.

    Rong et al. 2022, https://arxiv.org/abs/2202.00449: removed pixels are filled in from their surroundings with a
    little noise, so that the hole itself reveals nothing. Equations and combined score are pytorch-grad-cam's. Higher
    is better; signed maps, which rank evidence against the class last, can gain more.
    """
    order, pixels, lost = _rank_pixels(maps), maps[0].numel(), []
    with seeded(0):
        for fraction in ROAD_FRACTIONS:
            count = round(fraction * pixels)
            for sign, removed in ((1, order[:, -count:]), (-1, order[:, :count])):
                kept = torch.ones(maps.shape).flatten(1).scatter_(1, removed, 0.0).view_as(maps)
                imputed = torch.stack([_impute(face, mask) for face, mask in zip(faces, kept, strict=True)])
                lost.append(sign * score(imputed))
    return torch.stack(lost).sum(0) / (2 * len(ROAD_FRACTIONS))


def region_shares(maps: Tensor) -> Mapping[str, Tensor]:
    """Return each facial region's share (N,) of the positive values, and the share elsewhere; NaN for blank maps."""
    positive = maps.clamp(min=0)
    total = positive.sum((1, 2))
    masks = {name: region_mask(name, *maps.shape[-2:]) for name in REGIONS}
    masks["elsewhere"] = ~torch.stack([*masks.values()]).any(0)
    return {name: (positive * mask).sum((1, 2)) / total for name, mask in masks.items()}


def sensitivity(
    explainer: EnsembleExplainer, faces: Tensor, targets: Tensor, samples: int = 4, radius: float = 0.02
) -> Tensor:
    """Return the largest relative change (N,) of a map under uniform noise of up to `radius`; NaN for blank maps.

    Yeh et al. 2019, https://arxiv.org/abs/1901.09392. Lower is better.
    """
    maps = explainer.maps(faces, targets)
    norm, largest = maps.flatten(1).norm(dim=1), torch.zeros(len(faces))
    generator = torch.Generator().manual_seed(0)
    for _ in range(samples):
        noise = (2 * torch.rand(faces.shape, generator=generator) - 1) * radius
        noisy = explainer.maps((faces + noise).clamp(0, 1), targets)
        largest = largest.maximum((noisy - maps).flatten(1).norm(dim=1))
    return torch.where(norm > 0, largest / norm, torch.nan)


def randomization(
    explainer: EnsembleExplainer, faces: Tensor, targets: Tensor, maps: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """Yield the rank correlation (N,) of the maps with those of the network with shuffled weights, part by part.

    Adebayo et al. 2018, https://arxiv.org/abs/1810.03292: a map that stays the same does not depend on what was
    learned. In turn, the head, the head and the later half of the blocks, and all blocks are shuffled, but not the
    statistics of batch normalization. Closer to 0 is better.
    """
    for name, fraction in (("head", 0.0), ("later half", 0.5), ("all", 1.0)):
        ensemble = shuffle_weights(explainer.ensemble, fraction)
        shuffled = EnsembleExplainer(ensemble, explainer.explainer, explainer.precision)
        yield name, rank_correlation(maps, shuffled.maps(faces, targets))


def shuffle_weights(ensemble: Ensemble, fraction: float, seed: int = 0) -> Ensemble:
    """Return a copy with shuffled weights in the members' heads and the last `fraction` of their blocks.

    Shuffling within a parameter keeps the distribution of its values.
    """
    shuffled = copy.deepcopy(ensemble)
    generator = torch.Generator().manual_seed(seed)
    for member in shuffled.members:
        assert isinstance(member.net, FaceNetwork)
        depths = member.net.depths()
        first = max(depths.values()) * (1 - fraction)
        for name, parameter in member.net.named_parameters():
            if depths[name] >= first:
                values = parameter.data.flatten()
                order = torch.randperm(len(values), generator=generator).to(values.device)
                parameter.data.copy_(values[order].view_as(parameter))
    return shuffled


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Return Spearman's rank correlation (N,) of maps (N, H, W) with others; NaN where either is constant."""
    correlations = []
    for first, second in zip(maps.flatten(1).numpy(), others.flatten(1).numpy(), strict=True):
        constant = first.min() == first.max() or second.min() == second.max()
        correlations.append(float("nan") if constant else float(spearmanr(first, second).statistic))
    return torch.tensor(correlations)


def _replace_pixels(score: Score, before: Tensor, after: Tensor, maps: Tensor) -> Tensor:
    """Return the score while the pixels of `before` are replaced by those of `after`, most important first."""
    rank = _rank_pixels(maps).argsort(dim=1).view_as(maps)[:, None]
    pixels = maps[0].numel()
    scores = [score(torch.where(rank < pixels * step / STEPS, after, before)) for step in range(STEPS + 1)]
    return torch.stack(scores, 1)


def _rank_pixels(maps: Tensor) -> Tensor:
    """Return the pixel indices (N, H * W) of maps (N, H, W), most important first; ties in random order."""
    flat = maps.flatten(1)
    shuffled = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(0))
    return shuffled[flat[:, shuffled].argsort(dim=1, descending=True, stable=True)]


def _impute(face: Tensor, kept: Tensor) -> Tensor:
    """Replace the pixels of a face (1 or 3, H, W) outside `kept` (H, W) by weighted means of their neighbors."""
    with warnings.catch_warnings(action="ignore"):  # NumPy 2 warns about argwhere of a tensor
        imputed: Tensor = NoisyLinearImputer()(face, kept)
    return imputed
