"""The faces to explain, and the class to explain of each."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotion.data.datamodule import EmotionDataModule
from emotion.data.labels import NO_CLASS
from emotion.data.names import class_key
from emotion.data.transforms.preprocess import to_float
from emotion.errors import UserError


class ImageSet(NamedTuple):
    """N faces with their origin and, if known, their labels."""

    faces: Tensor  # (N, 1 or 3, H, W) in [0, 1]
    rows: NDArray[np.int64]  # (N,) of the source; 0 to N - 1 for image files
    names: Sequence[str]  # for captions
    labels: Tensor | None  # (N,) class indices; None for image files
    classes: tuple[str, ...]
    source: str  # name of the data
    digest: str | None  # MD5 of the data; None for image files
    crops: Sequence[Mapping[str, Any]] | None = None  # N, the file and the box of each face; None for rows of a source

    def summary(self) -> dict[str, Any]:
        """Return the origin of the faces for the record."""
        origin = {"rows": self.rows.tolist()} if self.crops is None else {"crops": self.crops}
        return {"source": self.source, "digest": self.digest, "n": len(self.rows), **origin}

    def gray(self, index: int) -> NDArray[np.float32]:
        """Return a face (H, W) with its channels averaged, since colors would mix with those of a map."""
        face: NDArray[np.float32] = self.faces[index].mean(0).numpy()
        return face


def image_set_of_rows(data: EmotionDataModule, rows: NDArray[np.int64]) -> ImageSet:
    """Return the faces of some rows of a source.

    Raises:
        UserError: A row does not exist or belongs to no class.
    """
    if rows.min() < 0 or rows.max() >= len(data.faces):
        raise UserError(f"rows={rows.tolist()}: expected numbers from 0 to {len(data.faces) - 1}.")
    if (unlabeled := rows[data.labels[rows] == NO_CLASS]).size:
        raise UserError(f"rows={unlabeled.tolist()} belong to none of {', '.join(data.classes)}; choose others.")
    faces = to_float(torch.from_numpy(data.faces.images[rows]))
    labels = torch.from_numpy(data.labels[rows].astype(np.int64))
    names = [f"row {row}" for row in rows]
    return ImageSet(faces, rows, names, labels, data.classes, data.faces.source, data.faces.digest)


def image_set_of_pixels(
    pixels: NDArray[np.uint8],
    names: Sequence[str],
    classes: tuple[str, ...],
    source: str,
    crops: Sequence[Mapping[str, Any]],
) -> ImageSet:
    """Return faces (N, H, W) or (N, H, W, 3) without labels."""
    faces, rows = to_float(torch.from_numpy(pixels)), np.arange(len(pixels))
    return ImageSet(faces, rows, names, None, classes, source, None, crops)


def sample_balanced(rows: NDArray[np.int64], labels: NDArray[np.integer], count: int, seed: int) -> NDArray[np.int64]:
    """Sample `count` of the rows, as evenly over the classes as possible, the classes alternating."""
    sampled = np.random.default_rng(seed).permutation(rows)
    rank = np.empty(len(sampled), int)  # within the class
    for label in np.unique(labels[sampled]):
        mask = labels[sampled] == label
        rank[mask] = np.arange(mask.sum())
    return sampled[np.lexsort((labels[sampled], rank))][:count]


def find_target(target: str | bool, images: ImageSet) -> str | int:
    """Return what to explain: predicted, true, or the index of a class, which may have a synonym of its name.

    OmegaConf parses `target=true` as a boolean.

    Raises:
        UserError: `target` is not a class, or the faces have no labels.
    """
    target = "true" if target is True else str(target)
    choices = ["predicted", *([] if images.labels is None else ["true"])]
    if target in choices:
        return target
    keys = [class_key(name) for name in images.classes]
    if class_key(target) in keys:
        return keys.index(class_key(target))
    raise UserError(f"target={target}: expected {', '.join([*choices, *images.classes])}.")


def select_targets(target: str | int, probabilities: Tensor, images: ImageSet) -> Tensor:
    """Return the classes (N,) to explain, `target` as `find_target` returns it; probabilities are (N, K)."""
    if isinstance(target, int):
        return torch.full((len(probabilities),), target)
    if target == "true":
        assert images.labels is not None
        return images.labels
    return probabilities.argmax(1)
