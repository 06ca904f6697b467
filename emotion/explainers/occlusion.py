"""Occlusion: the drop in the probability of a class when a patch of the face is covered.

Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901. Uses captum.
"""

import captum.attr
import torch
from torch import Tensor

from emotion.classifier import EmotionClassifier

PERTURBATION_BATCH = 512


class Occlusion:
    """Maps of the probability lost, averaged over the patches that cover a pixel; negative where covering helps.

    Args:
        patch: Side of the patch as a fraction of the face's.
        step: Distance between patches as a fraction of the face's side.
    """

    signed = True

    def __init__(self, patch: float = 1 / 6, step: float = 1 / 12) -> None:
        if not 0 < step <= patch < 1:
            raise ValueError(f"patch={patch}, step={step}; expected 0 < step <= patch < 1, fractions of the side.")
        self.patch, self.step = patch, step

    def __call__(self, classifier: EmotionClassifier, faces: Tensor, targets: Tensor) -> Tensor:
        """Return maps (B, S, S) for faces (B, C, S, S) and target classes (B,)."""
        count, channels, side, _ = faces.shape
        patch, step = (max(1, round(fraction * side)) for fraction in (self.patch, self.step))
        with torch.no_grad():
            lost: Tensor = captum.attr.Occlusion(classifier.calibrated_probabilities).attribute(
                faces,
                sliding_window_shapes=(channels, patch, patch),
                strides=(channels, step, step),
                baselines=0.0,  # mean gray
                target=targets,
                perturbations_per_eval=max(1, PERTURBATION_BATCH // count),
            )
        return lost.mean(1)
