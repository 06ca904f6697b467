"""SHAP: the contribution of each pixel to the logit of a class, relative to blank faces from black to white.

Lundberg and Lee 2017, https://arxiv.org/abs/1705.07874, by expected gradients (Erion et al. 2021,
https://arxiv.org/abs/1906.10670). Uses captum's GradientShap.
"""

import torch
from captum.attr import GradientShap
from torch import Tensor

from emotion.classifier import EmotionClassifier
from emotion.explainers.explainer import seeded

GRAY_LEVELS = 9  # blank faces; with a single gray, pixels of that gray would get no contribution
GRADIENT_BATCH = 64


class Shap:
    """Maps that sum to approximately the face's logit minus the mean over blank faces; more samples are more accurate.

    Args:
        samples: Points between the face and a blank face whose gradients are averaged.
        noise: Standard deviation of normal noise on each point, in units of the normalized face.
        seed: Seed of the sampling.
    """

    signed = True

    def __init__(self, samples: int = 32, noise: float = 0.0, seed: int = 0) -> None:
        if samples < 1 or noise < 0:
            raise ValueError(f"samples={samples}, noise={noise}; expected at least one sample and no negative noise.")
        self.samples, self.noise, self.seed = samples, noise, seed

    def __call__(self, classifier: EmotionClassifier, faces: Tensor, targets: Tensor) -> Tensor:
        """Return maps (B, S, S) for faces (B, C, S, S) and target classes (B,)."""
        grays = torch.linspace(0, 1, GRAY_LEVELS, device=faces.device)
        blank = classifier.preprocess.normalize(grays.view(-1, 1, 1, 1).expand(-1, 1, *faces.shape[-2:]))
        batch_size, maps = max(1, GRADIENT_BATCH // self.samples), []
        for batch, batch_targets in zip(torch.split(faces, batch_size), torch.split(targets, batch_size), strict=True):
            with torch.enable_grad(), seeded(self.seed):
                values: Tensor = GradientShap(classifier).attribute(
                    batch.clone(), baselines=blank, n_samples=self.samples, stdevs=self.noise, target=batch_targets
                )
            maps.append(values.detach().float().sum(1))
        return torch.cat(maps)
