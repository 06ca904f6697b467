"""A source followed by the training rows of a second one, which may be added to training."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion.data.faces import MIXED, TRAINING, DataSource, FaceChunk, Faces
from emotion.data.labels import NO_CLASS
from emotion.data.names import class_key
from emotion.data.readers.images import square_crop
from emotion.errors import UserError


def read(source: DataSource, extra: DataSource) -> DataSource:
    """Append the Training rows of `extra` to `source` with usage Mixed.

    They take the image size and channels of `source`, its names of classes and no votes. Classes that only `extra` has
    are appended.
    """
    own = {class_key(name): name for name in source.classes}
    named = [own.get(class_key(name), name) for name in extra.classes]
    classes = [*source.classes, *(name for name in dict.fromkeys(named) if name not in source.classes)]
    codes = np.array([classes.index(name) for name in named], np.uint8)
    chunks = _chunks(source.read(), extra.read(), codes)
    return DataSource(f"{source.name} and {extra.name}", classes, (), None, chunks, components=(source, extra))


def _chunks(source: Iterator[FaceChunk], extra: Iterator[FaceChunk], codes: NDArray[np.uint8]) -> Iterator[FaceChunk]:
    shape: tuple[int, ...] = ()
    num_votes = None
    for chunk in source:
        shape, num_votes = chunk.images.shape[1:], None if chunk.votes is None else chunk.votes.shape[1]
        yield chunk
    for chunk in extra:
        training = np.flatnonzero(chunk.usage == TRAINING)
        if len(training):
            yield FaceChunk(
                np.stack([_reshape(chunk.images[row], shape) for row in training]),
                codes[chunk.labels[training]],
                np.full(len(training), MIXED, np.uint8),
                [chunk.origin[row] for row in training],
                None if num_votes is None else np.zeros((len(training), num_votes), np.uint8),
                np.flatnonzero(np.isin(training, chunk.without_face)).tolist(),
            )


def _reshape(image: NDArray[np.uint8], shape: Sequence[int]) -> NDArray[np.uint8]:
    if image.shape == shape:
        return image
    return np.asarray(square_crop(Image.fromarray(image), shape[0], "RGB" if len(shape) == 3 else "L"))


def check_classes(faces: Faces, labels: NDArray[np.int64]) -> None:
    """Raise UserError if the label scheme uses a class that only the second source has."""
    own = np.unique(faces.labels[faces.usage != MIXED])
    mixed = np.unique(faces.labels[(faces.usage == MIXED) & (labels != NO_CLASS)])
    if extra_only := [faces.classes[i] for i in np.setdiff1d(mixed, own)]:
        main, extra = faces.components
        raise UserError(
            f"{extra.source} has the classes {', '.join(extra_only)}, but {main.source} has only "
            f"{', '.join(faces.classes[i] for i in own)}. Choose labels=NAME without the others."
        )


def sample_extra_rows(
    faces: Faces, labels: NDArray[np.int64], train: NDArray[np.int64], classes: Sequence[str], percent: float, seed: int
) -> NDArray[np.int64]:
    """Sample Mixed rows, sorted, to add to `train`: per class at most `percent` (0 to 100) of its rows there."""
    rng = np.random.default_rng(seed)
    sampled = []
    for label in range(len(classes)):
        members = rng.permutation(np.flatnonzero((faces.usage == MIXED) & (labels == label)))
        limit = percent / 100 * np.count_nonzero(labels[train] == label)
        sampled.append(members[: math.floor(round(limit, 6))])  # 0.29 * 100 is 28.999999999999996
    return np.sort(np.concatenate(sampled))
