"""Test-time views: the same faces seen several ways, whose probabilities are averaged."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

CROP = 11 / 12  # of the side: 44 of 48, as FER2013's ten-crop figures are made


def none(faces: Tensor) -> list[Tensor]:
    """The faces (B, C, H, W) as they are."""
    return [faces]


def flip(faces: Tensor) -> list[Tensor]:
    """The faces and their mirror images."""
    return [faces, faces.flip(-1)]


def ten_crop(faces: Tensor) -> list[Tensor]:
    """Four corners and the centre, enlarged to the full side again, and their mirror images."""
    side = faces.shape[-1]
    crop = round(side * CROP)
    far, middle = side - crop, (side - crop) // 2
    places = [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
    crops = [
        interpolate(faces[..., top : top + crop, left : left + crop], (side, side), mode="bilinear")
        for top, left in places
    ]
    return [view for crop in crops for view in flip(crop)]


TTA: dict[str, Callable[[Tensor], list[Tensor]]] = {"none": none, "flip": flip, "ten_crop": ten_crop}


def logits(net: Callable[[Tensor], Tensor], faces: Tensor, tta: str) -> Tensor:
    """What `net` makes of the faces (B, C, H, W), seen in each of the views: (V, B, K) in float32."""
    return logits_of_each(net, faces, [tta])[tta]


def logits_of_each(net: Callable[[Tensor], Tensor], faces: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """`logits` by the name of their views; what several have, as flip has the face as it is, is asked once."""
    tta = {name: TTA[name](faces) for name in names}
    asked = {id(view): view for several in tta.values() for view in several}
    answers = {key: net(view).float() for key, view in asked.items()}
    return {name: torch.stack([answers[id(view)] for view in several]) for name, several in tta.items()}


def averaged(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Probabilities (B, K), the mean over the views' own, of logits (V, B, K) divided by `temperature`."""
    return (logits / temperature).softmax(-1).mean(0)
