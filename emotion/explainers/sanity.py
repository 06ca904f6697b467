"""Whether maps hold still when the face does, and change when what was learnt goes; of a blank map nothing is known."""

import copy
from collections.abc import Iterator

import torch
from scipy.stats import spearmanr
from torch import Tensor

from emotion.ensemble import Ensemble
from emotion.explainers.explanations import Explainer
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
