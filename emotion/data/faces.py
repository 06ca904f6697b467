"""The one form that every source of faces takes before anything else looks at it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""FER2013's classes in the order of its label column."""

USAGES = ("Training", "PublicTest", "PrivateTest", "Test", "Mixed")
"""FER2013's usages; Test is a test set that does not tell its public part from its private one, Mixed the rows of a
second source, which are in no split and may be added to training."""

TRAINING, PUBLIC_TEST, PRIVATE_TEST, TEST, MIXED = range(5)

ORIGIN_BYTES = 96  # of a row's origin that are kept: its end


class Rows(NamedTuple):
    """A few faces, as a reader hands them on: n rows of one image size, valid until the next ones are asked for."""

    images: NDArray[np.uint8]  # (n, H, W) grey or (n, H, W, 3) RGB
    labels: NDArray[np.uint8]  # (n,) index into the reader's classes
    usage: NDArray[np.uint8]  # (n,) index into USAGES
    origin: list[str]  # where each row came from: "row 17", "test/happy/x.png"
    votes: NDArray[np.uint8] | None = None  # (n, V) taggers for each of the reader's first V classes


class Reading(NamedTuple):
    """What a reader returns, having looked at no more than names and sizes: the rows come when asked for."""

    name: str  # for people
    classes: Sequence[str]
    files: Iterable[Path]  # what the source consists of, anew each time; none where it is made or composed
    expected: int | None  # rows, for the progress bar; None where the source does not say
    rows: Iterator[Rows]
    named: bool = True  # whether the files' names say something that is not in them, such as a class
    parts: Sequence["Reading"] = ()  # what the source is composed of


class Part(NamedTuple):
    """One of the sources that a source is composed of."""

    source: str
    digest: str


@dataclass(frozen=True)
class Faces:
    """All rows of a source, memory-mapped: N faces need no more memory than the ones being looked at."""

    images: NDArray[np.uint8]  # (N, H, W) or (N, H, W, 3)
    labels: NDArray[np.uint8]  # (N,)
    usage: NDArray[np.uint8]  # (N,)
    origin: NDArray[np.bytes_]  # (N,) UTF-8
    classes: tuple[str, ...]
    digest: str  # of the source: the MD5 of its file, or of its files and their names, or of its parameters
    source: str  # for people: "data/fer2013.csv", "synthetic faces"
    parts: tuple[Part, ...] = ()  # of a composed source, the main one first
    votes: NDArray[np.uint8] | None = None  # (N, V) taggers for each of the first V classes; a row may have none

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self) -> NDArray[np.int64]:
        """Rows per usage and class, (len(USAGES), len(classes))."""
        flat = self.usage.astype(np.int64) * len(self.classes) + self.labels
        return np.bincount(flat, minlength=len(USAGES) * len(self.classes)).reshape(len(USAGES), -1)
