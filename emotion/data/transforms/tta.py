"""Test-time augmentation (TTA): average the probabilities of several views of a face."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

CROP = 11 / 12  # of the side: 44 of 48 pixels, as in published ten-crop results on FER2013


def none(faces: Tensor) -> list[Tensor]:
    """Return the faces (B, C, H, W) only."""
    return [faces]


def flip(faces: Tensor) -> list[Tensor]:
    """Return the faces and their mirror images."""
    return [faces, faces.flip(-1)]


def ten_crop(faces: Tensor) -> list[Tensor]:
    """Return the four corners and the centre, resized to the full side, and their mirror images."""
    side = faces.shape[-1]
    crop = round(side * CROP)
    far, middle = side - crop, (side - crop) // 2
    corners = [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
    crops = [
        interpolate(faces[..., top : top + crop, left : left + crop], (side, side), mode="bilinear")
        for top, left in corners
    ]
    return [view for crop in crops for view in flip(crop)]


TTA: dict[str, Callable[[Tensor], list[Tensor]]] = {"none": none, "flip": flip, "ten_crop": ten_crop}


def tta_logits(net: Callable[[Tensor], Tensor], faces: Tensor, tta: str) -> Tensor:
    """Return the float32 logits (V, B, K) of each view of the faces (B, C, H, W)."""
    return tta_logits_by_name(net, faces, [tta])[tta]


def tta_logits_by_name(net: Callable[[Tensor], Tensor], faces: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Return `tta_logits` of several kinds of TTA; the network evaluates the unchanged face once for all of them."""
    views = {name: TTA[name](faces) for name in names}
    distinct = {id(view): view for several in views.values() for view in several}
    logits = {key: net(view).float() for key, view in distinct.items()}
    return {name: torch.stack([logits[id(view)] for view in several]) for name, several in views.items()}


def mean_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean over views of the probabilities (B, K) of logits (V, B, K) divided by `temperature`."""
    return (logits / temperature).softmax(-1).mean(0)
