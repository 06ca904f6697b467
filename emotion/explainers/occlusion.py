"""Occlusion: how much of a class's probability goes when a patch of the face is covered.

Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901. By captum.
"""

import torch
from captum.attr import Occlusion as TheirOcclusion
from torch import Tensor

from emotion.classifier import EmotionClassifier

AT_ONCE = 512  # covered faces that go through the network together


class Occlusion:
    """Maps of probability lost, the mean over the patches that cover a pixel; below 0 where covering helps.

    Args:
        patch: side of the patch, as a share of the face's.
        step: between two patches, as a share of the face's side.
    """

    signed = True

    def __init__(self, patch: float = 1 / 6, step: float = 1 / 12) -> None:
        if not 0 < step <= patch < 1:
            raise ValueError(f"patch={patch}, step={step}; expected 0 < step <= patch < 1, shares of the face's side.")
        self.patch, self.step = patch, step

    def __call__(self, classifier: EmotionClassifier, faces: Tensor, targets: Tensor) -> Tensor:
        """Faces (B, C, S, S), classes (B,) to maps (B, S, S)."""
        count, channels, side, _ = faces.shape
        patch, step = (max(1, round(share * side)) for share in (self.patch, self.step))
        with torch.no_grad():
            lost: Tensor = TheirOcclusion(classifier.calibrated).attribute(
                faces,
                sliding_window_shapes=(channels, patch, patch),
                strides=(channels, step, step),
                baselines=0.0,  # mean grey
                target=targets,
                perturbations_per_eval=max(1, AT_ONCE // count),
            )
        return lost.mean(1)
