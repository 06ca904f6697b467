"""The in-memory form of every data source: what readers yield and what the rest of the package uses."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion.errors import UserError, first_line

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The classes of FER2013 in the order of its label column."""

USAGES = ("Training", "PublicTest", "PrivateTest", "Test", "Mixed")
"""FER2013's usages and two more: Test is a test set without a public and a private part; Mixed marks the rows of a
second source, which belong to no split and may be added to training."""

TRAINING, PUBLIC_TEST, PRIVATE_TEST, TEST, MIXED = range(5)

SYNTHETIC = "synthetic faces"
"""The name of the source of generated faces."""

ORIGIN_BYTES = 96  # longest stored origin of a row; longer ones lose their beginning


PROGRAM_ERRORS = (TypeError, AttributeError, NameError, AssertionError)
"""Exceptions that show a mistake in a reader's code, and not in the file that it reads."""


def face_shape(side: int, channels: int) -> tuple[int, ...]:
    """Return the shape of the array of a face with 1 channel (gray) or 3 (RGB)."""
    return (side, side) if channels == 1 else (side, side, 3)


class FaceChunk(NamedTuple):
    """n consecutive rows of a source, all of one image size; valid until the next chunk is requested."""

    images: NDArray[np.uint8]  # (n, H, W) gray or (n, H, W, 3) RGB
    labels: NDArray[np.uint8]  # (n,) index into the source's classes
    usage: NDArray[np.uint8]  # (n,) index into USAGES
    origin: list[str]  # where each row came from: "row 17", "test/happy/x.png"
    votes: NDArray[np.uint8] | None = None  # (n, V) annotators for each of the source's first V classes
    without_face: Sequence[int] = ()  # positions of images in which a detector found no face


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

    def read(self) -> Iterator[FaceChunk]:
        """Yield the chunks, each checked.

        Raises:
            UserError: The reader cannot read a file; or returns no rows, a label or usage without a name, or an array
                of another type or shape.
        """
        shape: tuple[int, ...] = ()
        num_rows = 0
        with read_errors(self.name):
            for chunk in self.chunks:
                shape = shape or chunk.images.shape[1:]
                self._check(chunk, shape)
                num_rows += len(chunk.labels)
                yield chunk
        if not num_rows:
            raise UserError(f"{self.name} has no rows; expected one row per face.")

    def _check(self, chunk: FaceChunk, shape: tuple[int, ...]) -> None:
        for noun, values, names in (("label", chunk.labels, self.classes), ("usage", chunk.usage, USAGES)):
            if len(wrong := np.flatnonzero((values < 0) | (values >= len(names)))):
                raise UserError(
                    f"{self.name}, {chunk.origin[wrong[0]]}: found {noun} {values[wrong[0]]}, expected 0 to "
                    f"{len(names) - 1} ({', '.join(names)}). Correct the file, or the reader's classes."
                )
        arrays = {"images": (chunk.images, shape), "labels": (chunk.labels, ()), "usage": (chunk.usage, ())}
        for name, (array, row_shape) in arrays.items():
            expected = (len(chunk.origin), *row_shape)
            if array.dtype != np.uint8 or array.shape != expected:
                raise UserError(
                    f"{self.name}: its reader returns {name} {array.shape} of {array.dtype}, expected {expected} of "
                    f"uint8. Correct the reader."
                )


@contextmanager
def read_errors(name: str) -> Iterator[None]:
    """Report exceptions of a reader, whatever library raises them, as one message about the source `name`."""
    try:
        yield
    except (UserError, *PROGRAM_ERRORS):
        raise
    except OSError as error:
        raise UserError(f"{error.filename or name} cannot be read: {error.strerror or error}.") from error
    except Exception as error:
        raise UserError(
            f"{name} cannot be read ({type(error).__name__}: {first_line(error)}); is it complete, and in the form "
            f"that its reader expects?"
        ) from error


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
    votes: NDArray[np.uint8] | None = None  # (N, V) annotators for each of the first V classes; all 0 for rows without
    notes: tuple[str, ...] = ()  # what its reader left out or read as something else

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_synthetic(self) -> bool:
        """Whether the main source generated its faces."""
        main = self.components[0].source if self.components else self.source
        return main == SYNTHETIC

    def origin_of(self, row: int) -> str:
        """Return where a row came from: "row 17", "test/happy/x.png"; only its end if it is long."""
        return bytes(self.origin[row]).decode(errors="ignore")

    def counts(self) -> NDArray[np.int64]:
        """Return the rows per usage and class, (len(USAGES), len(classes))."""
        flat = self.usage.astype(np.int64) * len(self.classes) + self.labels
        return np.bincount(flat, minlength=len(USAGES) * len(self.classes)).reshape(len(USAGES), -1)
