"""Test-time augmentation (TTA): average the probabilities of several views of a face.

Each kind maps faces (B, 1 or 3, H, H) from `Preprocess.shrink`, and the function that makes network input (B, C, S, S)
of them, to a list of views (B, C, S, S).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from emotion.data.transforms.shifts import windows

Prepare = Callable[[Tensor], Tensor]

CROP = 11 / 12  # of the side: 44 of 48 pixels, as in published ten-crop results on FER2013


def none(faces: Tensor, prepare: Prepare) -> list[Tensor]:
    """Return the faces only."""
    return [prepare(faces)]


def flip(faces: Tensor, prepare: Prepare) -> list[Tensor]:
    """Return the faces and their mirror images."""
    return _with_mirror_images([prepare(faces)])


def shifted(faces: Tensor, prepare: Prepare) -> list[Tensor]:
    """Return the faces, the faces moved diagonally by a sixteenth of the side, and their mirror images.

    Pixels are not interpolated. Where `input.zoom` crops the center, the moved faces show more of their edge.
    """
    side = faces.shape[-1]
    step, corners = windows(side)
    padded = pad(faces, (step, step, step, step), mode="replicate")
    moved = (padded[..., top : top + side, left : left + side] for top, left in corners[1:])
    return _with_mirror_images(list(map(prepare, (faces, *moved))))


def ten_crop(faces: Tensor, prepare: Prepare) -> list[Tensor]:
    """Return the four corners and the center, resized to the full side, and their mirror images."""
    inputs = prepare(faces)
    side = inputs.shape[-1]
    crop = round(side * CROP)
    far, middle = side - crop, (side - crop) // 2
    corners = [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
    return _with_mirror_images(
        [
            interpolate(inputs[..., top : top + crop, left : left + crop], (side, side), mode="bilinear")
            for top, left in corners
        ]
    )


TTA: dict[str, Callable[[Tensor, Prepare], list[Tensor]]] = {
    "none": none,
    "flip": flip,
    "shifted": shifted,
    "ten_crop": ten_crop,
}


def tta_logits(
    net: Callable[[Tensor], Tensor], prepare: Prepare, faces: Tensor, names: Sequence[str]
) -> dict[str, Tensor]:
    """Return the float32 logits (V, B, K) of the views of faces (B, 1 or 3, H, W), by the name of the TTA.

    The network evaluates the unchanged face once for all of them.
    """
    unchanged = prepare(faces)
    views = {name: TTA[name](faces, lambda each: unchanged if each is faces else prepare(each)) for name in names}
    distinct = {id(view): view for several in views.values() for view in several}
    logits = {key: net(view).float() for key, view in distinct.items()}
    return {name: torch.stack([logits[id(view)] for view in several]) for name, several in views.items()}


def mean_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean over views of the probabilities (B, K) of logits (V, B, K) divided by `temperature`."""
    return (logits / temperature).softmax(-1).mean(0)


def _with_mirror_images(views: Sequence[Tensor]) -> list[Tensor]:
    return [mirrored for view in views for mirrored in (view, view.flip(-1))]
