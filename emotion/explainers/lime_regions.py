"""LIME: a linear model of which regions of the face raise a class's probability.

Ribeiro et al. 2016, https://arxiv.org/abs/1602.04938. By captum.
"""

import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import Lime as TheirLime
from captum.attr._core.lime import get_exp_kernel_similarity_function
from torch import Tensor

from emotion.classifier import EmotionClassifier
from emotion.explainers.explainer import seeded

AT_ONCE = 256  # faces with some regions left out that go through the network together


class Lime:
    """Maps of a ridge regression's weights, one value a square region: probability gained by its being there.

    Faces of 48 pixels have no room for the segments that LIME takes from photographs; a grid of squares stands in.

    Args:
        regions: squares along each side.
        samples: faces with random regions left grey, to which the regression is fitted.
        kernel_width: of the exponential kernel over cosine distance that weighs them.
        ridge: the regression's penalty.
        seed: of the regions that are left out, the same for every face.
    """

    signed = True

    def __init__(
        self, regions: int = 8, samples: int = 400, kernel_width: float = 0.25, ridge: float = 1.0, seed: int = 0
    ) -> None:
        if not 1 < regions or samples < 2 or kernel_width <= 0 or ridge < 0:
            raise ValueError(
                f"regions={regions}, samples={samples}, kernel_width={kernel_width}, ridge={ridge}; expected at least "
                f"two regions and samples, a width above 0 and a ridge of 0 or more."
            )
        self.regions, self.samples, self.seed = regions, samples, seed
        self.kernel_width, self.ridge = kernel_width, ridge

    def __call__(self, classifier: EmotionClassifier, faces: Tensor, targets: Tensor) -> Tensor:
        """Faces (B, C, S, S), classes (B,) to maps (B, S, S)."""
        places = torch.arange(faces.shape[-1], device=faces.device) * self.regions // faces.shape[-1]
        grid = (places[:, None] * self.regions + places).expand(1, *faces.shape[1:])
        lime = TheirLime(
            classifier.calibrated,
            interpretable_model=SkLearnRidge(alpha=self.ridge),
            similarity_func=get_exp_kernel_similarity_function("cosine", self.kernel_width),
        )
        maps = []
        for face, target in zip(faces, targets.tolist(), strict=True):  # captum's takes one at a time
            with torch.no_grad(), seeded(self.seed):
                weights: Tensor = lime.attribute(
                    face[None],
                    baselines=0.0,  # mean grey
                    target=target,
                    feature_mask=grid,
                    n_samples=self.samples,
                    perturbations_per_eval=AT_ONCE,
                )
            maps.append(weights[0, 0])
        return torch.stack(maps)
