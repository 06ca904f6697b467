"""One source with the training rows of a second one behind its own, to be mixed into training."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion.data.faces import MIXED, TRAINING, Faces, Reading, Rows
from emotion.data.labels import LEFT_OUT
from emotion.data.readers.images import square
from emotion.errors import UserError


def read(source: Reading, extra: Reading) -> Reading:
    """All rows of `source` under their own numbers, then the Training rows of `extra` as usage Mixed.

    The latter take the size and channels of the former, and have no votes. Classes that only `extra` has come behind
    the others.
    """
    classes = [*source.classes, *(name for name in extra.classes if name not in source.classes)]
    codes = np.array([classes.index(name) for name in extra.classes], np.uint8)
    name = f"{source.name} and {extra.name}"
    return Reading(name, classes, (), None, _rows(source.rows, extra.rows, codes), parts=(source, extra))


def _rows(source: Iterator[Rows], extra: Iterator[Rows], codes: NDArray[np.uint8]) -> Iterator[Rows]:
    shape: tuple[int, ...] = ()
    voted = None
    for rows in source:
        shape, voted = rows.images.shape[1:], rows.votes
        yield rows
    for rows in extra:
        some = np.flatnonzero(rows.usage == TRAINING)
        if len(some):
            images = np.stack([_shaped(rows.images[i], shape) for i in some])
            usage = np.full(len(some), MIXED, np.uint8)
            votes = None if voted is None else np.zeros((len(some), voted.shape[1]), np.uint8)
            yield Rows(images, codes[rows.labels[some]], usage, [rows.origin[i] for i in some], votes)


def _shaped(image: NDArray[np.uint8], shape: Sequence[int]) -> NDArray[np.uint8]:
    if image.shape == shape:
        return image
    return np.asarray(square(Image.fromarray(image), shape[0], "RGB" if len(shape) == 3 else "L"))


def check_classes(faces: Faces, labels: NDArray[np.int64]) -> None:
    """Refuse a label scheme that takes in what only the second source has.

    Raises:
        UserError: naming both sources' classes.
    """
    own = np.unique(faces.labels[faces.usage != MIXED])
    mixed = np.unique(faces.labels[(faces.usage == MIXED) & (labels != LEFT_OUT)])
    if strangers := [faces.classes[i] for i in np.setdiff1d(mixed, own)]:
        main, extra = faces.parts
        raise UserError(
            f"{extra.source} has {', '.join(strangers)}; {main.source}, which it is mixed into, has only "
            f"{', '.join(faces.classes[i] for i in own)}. Choose labels=NAME that leaves the others out."
        )


def drawn(
    faces: Faces, labels: NDArray[np.int64], train: NDArray[np.int64], classes: Sequence[str], percent: float, seed: int
) -> NDArray[np.int64]:
    """Mixed rows to train beside `train`: at random, of each class at most `percent` of its rows there, sorted.

    Raises:
        UserError: a percentage that is none.
    """
    if not isinstance(percent, int | float) or not 0 <= percent <= 100:
        raise UserError(f"data.mix.percent={percent}: expected 0 to 100 per cent of each class's training rows.")
    rng = np.random.default_rng(seed)
    some = []
    for label in range(len(classes)):
        members = rng.permutation(np.flatnonzero((faces.usage == MIXED) & (labels == label)))
        some.append(members[: int(percent / 100 * np.count_nonzero(labels[train] == label))])
    return np.sort(np.concatenate(some))
