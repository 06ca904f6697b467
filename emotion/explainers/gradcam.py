"""Grad-CAM: where the maps of one layer lie that raise a class's logit.

Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391; Grad-CAM++: Chattopadhay et al. 2018,
https://arxiv.org/abs/1710.11063. By pytorch-grad-cam.
"""

from functools import partial

import torch
from pytorch_grad_cam import GradCAM as TheirGradCAM
from pytorch_grad_cam import GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from emotion.classifier import EmotionClassifier
from emotion.explainers.layers import as_maps, layer_of, prefix_tokens


class GradCam:
    """Maps from 0 to 1, each face's largest value 1 unless nothing in the layer speaks for the class.

    Args:
        layer: whose maps; None for the network's own choice.
        plus_plus: weigh each place's gradient as Grad-CAM++ does, which finds several places better.
    """

    signed = False

    def __init__(self, layer: str | None = None, plus_plus: bool = False) -> None:
        self.layer = layer
        self.cam = GradCAMPlusPlus if plus_plus else TheirGradCAM

    def __call__(self, classifier: EmotionClassifier, faces: Tensor, targets: Tensor) -> Tensor:
        """Faces (B, C, S, S), classes (B,) to maps (B, S, S)."""
        layer = layer_of(classifier.net, faces[:1], self.layer)
        with torch.enable_grad():
            began = layer.register_forward_hook(_begin)  # before theirs: what comes earlier needs no gradient
            cam = self.cam(classifier, [layer], partial(_reshape, prefix_tokens(classifier.net)))
            went_on = layer.register_forward_hook(_copy)  # after theirs: a ReLU in place does not change what it saw
            try:
                maps = cam(faces, [ClassifierOutputTarget(target) for target in targets.tolist()])
            finally:
                cam.activations_and_grads.release()
                began.remove()
                went_on.remove()
        return torch.from_numpy(maps).to(faces.device)


def _begin(layer: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return output.detach().float().requires_grad_()


def _copy(layer: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return output.clone()


def _reshape(prefix: int, output: Tensor) -> Tensor:
    reshape = as_maps(output, prefix)
    assert reshape is not None, "layer_of gives no other layers"
    return reshape(output)
