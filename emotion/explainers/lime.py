"""LIME: a linear model of the regions of the face that raise the probability of a class.

Ribeiro et al. 2016, https://arxiv.org/abs/1602.04938. Uses captum.
"""

import captum.attr
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr._core.lime import get_exp_kernel_similarity_function
from torch import Tensor

from emotion.classifier import EmotionClassifier
from emotion.explainers.explainer import seeded

PERTURBATION_BATCH = 256


class Lime:
    """Maps of the weights of a ridge regression, constant over each square region.

    A weight is the probability that the region adds. Regions are a grid of squares because faces of 48 pixels are too
    small for superpixels.

    Args:
        regions: Squares along each side.
        samples: Faces with random regions replaced by mean gray, on which the regression is fitted.
        kernel_width: Width of the exponential kernel over cosine distance that weights the samples.
        ridge: Penalty of the regression.
        seed: Seed of the random regions, the same for every face.
    """

    signed = True

    def __init__(
        self, regions: int = 8, samples: int = 400, kernel_width: float = 0.25, ridge: float = 1.0, seed: int = 0
    ) -> None:
        if regions < 2 or samples < 2 or kernel_width <= 0 or ridge < 0:
            raise ValueError(
                f"regions={regions}, samples={samples}, kernel_width={kernel_width}, ridge={ridge}; expected at least "
                f"two regions and samples, a width above 0 and a ridge of 0 or more."
            )
        self.regions, self.samples, self.seed = regions, samples, seed
        self.kernel_width, self.ridge = kernel_width, ridge

    def __call__(self, classifier: EmotionClassifier, faces: Tensor, targets: Tensor) -> Tensor:
        """Return maps (B, S, S) for faces (B, C, S, S) and target classes (B,)."""
        index = torch.arange(faces.shape[-1], device=faces.device) * self.regions // faces.shape[-1]
        grid = (index[:, None] * self.regions + index).expand(1, *faces.shape[1:])
        lime = captum.attr.Lime(
            classifier.calibrated_probabilities,
            interpretable_model=SkLearnRidge(alpha=self.ridge),
            similarity_func=get_exp_kernel_similarity_function("cosine", self.kernel_width),
        )
        maps = []
        for face, target in zip(faces, targets.tolist(), strict=True):  # captum's Lime takes one image at a time
            with torch.no_grad(), seeded(self.seed):
                weights: Tensor = lime.attribute(
                    face[None],
                    baselines=0.0,  # mean gray
                    target=target,
                    feature_mask=grid,
                    n_samples=self.samples,
                    perturbations_per_eval=PERTURBATION_BATCH,
                )
            maps.append(weights[0, 0])
        return torch.stack(maps)
