"""SHAP: what each pixel adds to a class's logit, against blank faces from black to white.

Lundberg and Lee 2017, https://arxiv.org/abs/1705.07874, by expected gradients (Erion et al. 2021,
https://arxiv.org/abs/1906.10670): captum's GradientShap.
"""

import torch
from captum.attr import GradientShap
from torch import Tensor

from emotion.classifier import EmotionClassifier
from emotion.explainers.explainer import seeded

GREYS = 9  # blank faces: one of a single grey would see nothing in the pixels that are as grey

AT_ONCE = 64  # points whose gradients are computed together


class Shap:
    """Maps whose sum over pixels nears the face's logit less the mean over blank faces, the more samples the nearer.

    Args:
        samples: points, each between the face and one of the blank ones, whose gradients are averaged.
        noise: standard deviation of normal noise on each point, in units of the normalised face.
        seed: of the draws.
    """

    signed = True

    def __init__(self, samples: int = 32, noise: float = 0.0, seed: int = 0) -> None:
        if samples < 1 or noise < 0:
            raise ValueError(f"samples={samples}, noise={noise}; expected at least one sample and no negative noise.")
        self.samples, self.noise, self.seed = samples, noise, seed

    def __call__(self, classifier: EmotionClassifier, faces: Tensor, targets: Tensor) -> Tensor:
        """Faces (B, C, S, S), classes (B,) to maps (B, S, S)."""
        greys = torch.linspace(0, 1, GREYS, device=faces.device).view(-1, 1, 1, 1).expand(-1, 1, *faces.shape[-2:])
        blank, at_once = classifier.preprocess.finish(greys), max(1, AT_ONCE // self.samples)
        maps = [
            self._few(classifier, some, blank, of_some)
            for some, of_some in zip(torch.split(faces, at_once), torch.split(targets, at_once), strict=True)
        ]
        return torch.cat(maps)

    def _few(self, classifier: EmotionClassifier, faces: Tensor, blank: Tensor, targets: Tensor) -> Tensor:
        with torch.enable_grad(), seeded(self.seed):
            values: Tensor = GradientShap(classifier).attribute(
                faces.clone(),
                baselines=blank,
                n_samples=self.samples,
                stdevs=self.noise,
                target=targets,
            )
        return values.detach().float().sum(1)
