"""The in-memory form of every data source: what readers yield and what the rest of the package uses."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The classes of FER2013 in the order of its label column."""

USAGES = ("Training", "PublicTest", "PrivateTest", "Test", "Mixed")
"""FER2013's usages and two more: Test is a test set without a public and a private part; Mixed marks the rows of a
second source, which belong to no split and may be added to training."""

TRAINING, PUBLIC_TEST, PRIVATE_TEST, TEST, MIXED = range(5)

SYNTHETIC = "synthetic faces"
"""The name of the source of generated faces."""

ORIGIN_BYTES = 96  # longest stored origin of a row; longer ones lose their beginning


class FaceChunk(NamedTuple):
    """n consecutive rows of a source, all of one image size; valid until the next chunk is requested."""

    images: NDArray[np.uint8]  # (n, H, W) grey or (n, H, W, 3) RGB
    labels: NDArray[np.uint8]  # (n,) index into the source's classes
    usage: NDArray[np.uint8]  # (n,) index into USAGES
    origin: list[str]  # where each row came from: "row 17", "test/happy/x.png"
    votes: NDArray[np.uint8] | None = None  # (n, V) taggers for each of the source's first V classes


class DataSource(NamedTuple):
    """What a reader function returns after checking names and sizes; iterating `chunks` reads the content."""

    name: str  # shown to users
    classes: Sequence[str]
    files: Iterable[Path]  # the files of the source, re-iterable; empty if generated or composed
    num_faces: int | None  # for the progress bar; None if unknown before reading
    chunks: Iterator[FaceChunk]
    names_matter: bool = True  # whether file names carry information, such as a class
    root: Path = Path()  # the folder that names of several files are relative to
    components: Sequence["DataSource"] = ()  # the sources that this one is composed of
    notes: Sequence[str] = ()  # what the user should know: names read as other names, files left out


class Component(NamedTuple):
    """The identity of a source that another source is composed of."""

    source: str
    digest: str


@dataclass(frozen=True)
class Faces:
    """All N rows of a source, memory-mapped."""

    images: NDArray[np.uint8]  # (N, H, W) or (N, H, W, 3)
    labels: NDArray[np.uint8]  # (N,)
    usage: NDArray[np.uint8]  # (N,)
    origin: NDArray[np.bytes_]  # (N,) UTF-8
    classes: tuple[str, ...]
    digest: str  # MD5 of the source's file, of its files and their names, or of its settings
    source: str  # name shown to users: "data/fer2013.csv", SYNTHETIC
    components: tuple[Component, ...] = ()  # of a composed source, the main one first
    votes: NDArray[np.uint8] | None = None  # (N, V) taggers for each of the first V classes; all 0 for rows without
    notes: tuple[str, ...] = ()  # what its reader left out or read as something else

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_synthetic(self) -> bool:
        """Whether the main source generated its faces."""
        return self.source.startswith(SYNTHETIC)

    def counts(self) -> NDArray[np.int64]:
        """Return the rows per usage and class, (len(USAGES), len(classes))."""
        flat = self.usage.astype(np.int64) * len(self.classes) + self.labels
        return np.bincount(flat, minlength=len(USAGES) * len(self.classes)).reshape(len(USAGES), -1)
