"""Grad-CAM: where the feature maps of one layer raise the logit of a class.

Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391; Grad-CAM++: Chattopadhay et al. 2018,
https://arxiv.org/abs/1710.11063. Uses pytorch-grad-cam.
"""

from contextlib import ExitStack
from functools import partial

import torch
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from emotion.classifier import EmotionClassifier
from emotion.explainers.layers import find_layer, num_prefix_tokens, to_feature_maps


class GradCam:
    """Maps in [0, 1]; the maximum of each is 1 unless nothing in the layer supports the class.

    Args:
        layer: Name of the layer; None for the network's own choice.
        plus_plus: Use Grad-CAM++, which weights every position's gradient and covers multiple regions better.
    """

    signed = False

    def __init__(self, layer: str | None = None, plus_plus: bool = False) -> None:
        self.layer = layer
        self.cam = GradCAMPlusPlus if plus_plus else GradCAM

    def __call__(self, classifier: EmotionClassifier, faces: Tensor, targets: Tensor) -> Tensor:
        """Return maps (B, S, S) for faces (B, C, S, S) and target classes (B,)."""
        layer = find_layer(classifier.net, faces[:1], self.layer)
        with torch.enable_grad(), ExitStack() as hooks:
            # before the library's hooks: no gradients in earlier layers
            hooks.enter_context(layer.register_forward_hook(_detach))
            cam = self.cam(classifier, [layer], partial(to_feature_maps, prefix=num_prefix_tokens(classifier.net)))
            hooks.callback(cam.activations_and_grads.release)
            # after them: an in-place ReLU must not change what they stored
            hooks.enter_context(layer.register_forward_hook(_clone))
            maps = cam(faces, [ClassifierOutputTarget(target) for target in targets.tolist()])
        return torch.from_numpy(maps).to(faces.device)


def _detach(layer: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return output.detach().float().requires_grad_()


def _clone(layer: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return output.clone()
