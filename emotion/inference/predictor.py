"""Find the faces of images and classify their expressions."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from emotion.data.crop import Box, Detector, RGBImage, crop
from emotion.data.faces import face_shape
from emotion.data.names import UNCLEAR
from emotion.data.readers.images import COLOR_SUFFIXES, SUFFIXES
from emotion.errors import UserError
from emotion.inference.backends import Backend
from emotion.inference.blazeface import BlazeFace
from emotion.inference.detectors import FullImage
from emotion.inference.images import COLORS, LoadedImage, batches, is_address, load_image
from emotion.inference.inputs import VIDEO_SUFFIXES, find_images
from emotion.inference.onnx_backend import OnnxBackend
from emotion.io.picture import save_image

if TYPE_CHECKING:
    from pandas import DataFrame
    from PIL.Image import Image

COLUMNS = ("left", "top", "width", "height", "angle", "score", "label", "probability")
"""Of a table of faces, followed by a column for the probability of each class."""

MIN_CONTRAST = 4.0  # standard deviation of gray levels; 99.9 % of FER2013's faces have more than 16


def is_blank(pixels: NDArray[np.uint8]) -> bool:
    """Return whether an image (H, W) or (H, W, 3) has nearly the same brightness everywhere."""
    return float(pixels.reshape(*pixels.shape[:2], -1).mean(2).std()) < MIN_CONTRAST


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Face:
    """A face and its expression; equal to another with the same values.

    Attributes:
        box: Its square in pixels of the upright image.
        classes: Class names in the order of `probs`.
        probs: Probabilities (K,).
        pixels: The face as the network saw it, (S, S) gray or (S, S, 3) RGB.
        min_confidence: Probability below which the label is `UNCLEAR`.
    """

    box: Box
    classes: tuple[str, ...]
    probs: NDArray[np.float32]
    pixels: NDArray[np.uint8]
    min_confidence: float = 0.0

    @property
    def label(self) -> str:
        """The most likely class, or `UNCLEAR`."""
        is_clear = self.probability >= self.min_confidence and not self.is_blank
        return self.classes[int(self.probs.argmax())] if is_clear else UNCLEAR

    @property
    def probability(self) -> float:
        """Probability of the most likely class."""
        return float(self.probs.max())

    @property
    def caption(self) -> str:
        """The label with the probability, as in "happiness 98 %"; for an unclear face also the most likely class."""
        likely = f"{self.classes[int(self.probs.argmax())]} {100 * self.probability:.0f} %"
        if self.label != UNCLEAR:
            return likely
        return UNCLEAR if self.is_blank else f"{UNCLEAR} ({likely})"

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability of every class by name."""
        return dict(zip(self.classes, map(float, self.probs), strict=True))

    @property
    def is_blank(self) -> bool:
        """Whether all pixels have nearly the same brightness, which no face has."""
        return is_blank(self.pixels)

    def to_dict(self) -> dict[str, Any]:
        """Return box (left, top, width, height), angle, score, label and probabilities, rounded, for JSON."""
        return {
            "box": self.box.xywh,
            "angle": round(float(self.box.angle), 1),
            "score": round(float(self.box.score), 3),
            "label": self.label,
            "probability": round(self.probability, 4),
            "probabilities": {name: round(value, 4) for name, value in self.probabilities.items()},
        }

    def to_row(self) -> dict[str, Any]:
        """Return the values of `to_dict` by `COLUMNS` and the names of the classes."""
        values = self.to_dict()
        box: list[float] = values.pop("box")
        probabilities: dict[str, float] = values.pop("probabilities")
        return dict(zip(COLUMNS, (*box, *values.values()), strict=True)) | probabilities

    def plot(self) -> "Image":
        """Return the face as the network saw it, with its probabilities."""
        from PIL import Image

        from emotion.inference.annotate import annotate_crop

        return Image.fromarray(annotate_crop(self))

    def _repr_png_(self) -> bytes | None:
        """Show the plot in a notebook."""
        return self.plot()._repr_png_()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Face) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        return (*self.box, self.classes, self.min_confidence, self.probs.tobytes(), self.pixels.tobytes())

    def __repr__(self) -> str:
        left, top, side = map(round, self.box[:3])
        return f"Face({self.caption}, left={left}, top={top}, side={side})"


class Faces(list[Face]):
    """The faces of one image, the largest first.

    Args:
        faces: The faces.
        image: The image as it was passed; `plot` decodes it again, so that results stay small.
        classes: Class names in the order of the probabilities.
        color: Order of the channels if it is an array: rgb or bgr.
    """

    def __init__(self, faces: Iterable[Face], image: object, classes: Sequence[str], color: str = "rgb") -> None:
        super().__init__(faces)
        self.image, self.classes, self.color = image, tuple(classes), color

    @overload
    def __getitem__(self, index: SupportsIndex) -> Face: ...
    @overload
    def __getitem__(self, index: slice) -> "Faces": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "Face | Faces":
        """Return a face, or the faces of a slice with their image."""
        found = super().__getitem__(index)
        return found if isinstance(found, Face) else Faces(found, self.image, self.classes, self.color)

    def to_dict(self) -> list[dict[str, Any]]:
        """Return `Face.to_dict` of each face."""
        return [face.to_dict() for face in self]

    def to_dataframe(self) -> "DataFrame":
        """Return one row per face with the columns `COLUMNS` and the classes.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise UserError("to_dataframe() needs pandas, which is not installed: pip install pandas.") from error
        return pd.DataFrame([face.to_row() for face in self], columns=[*COLUMNS, *self.classes])

    def plot(self) -> "Image":
        """Return the image with its boxes, labels and probabilities."""
        from PIL import Image

        from emotion.inference.annotate import annotate

        loaded = load_image(self.image, self.color)
        faces = [replace(face, box=face.box.scaled(1 / loaded.scale)) for face in self]
        return Image.fromarray(annotate(loaded.pixels, faces, extend=True))

    def save(self, path: str | Path) -> None:
        """Write `plot` as an image file, whose suffix sets the format; its folder is created.

        Raises:
            UserError: The suffix is not that of an image with colors.
            OSError: The file cannot be written; a previous one stays as it was.
        """
        path = Path(path).expanduser()
        if path.suffix.lower() not in COLOR_SUFFIXES:
            raise UserError(f"{path}: expected a name that ends in one of {', '.join(sorted(COLOR_SUFFIXES))}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(self.plot(), path)

    def _repr_png_(self) -> bytes | None:
        """Show the plot in a notebook."""
        return self.plot()._repr_png_()


class Predictor:
    """A face detector and a classifier; several threads may share it.

    It can be pickled, for other processes, and copied; both load .onnx files again.

    Args:
        backend: Classifies faces.
        detector: Finds faces.
        min_confidence: Probability of the most likely class below which a face is labeled `UNCLEAR`.
        batch_size: Maximum number of faces classified together.

    Raises:
        UserError: `min_confidence` is not between 0 and 1.
    """

    def __init__(self, backend: Backend, detector: Detector, min_confidence: float = 0.0, batch_size: int = 64) -> None:
        if not isinstance(min_confidence, SupportsFloat) or not 0 <= min_confidence <= 1:
            raise UserError(f"min_confidence={min_confidence}: expected a probability from 0 to 1.")
        self.backend, self.detector, self.batch_size = backend, detector, batch_size
        self.min_confidence = float(min_confidence)
        self._lock: AbstractContextManager[object] = nullcontext() if self.is_concurrent else Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.backend, self.detector, self.min_confidence, self.batch_size)

    def __repr__(self) -> str:
        detector = type(self.detector).__name__
        return f"Predictor({self.backend.name}, detector={detector}, classes={', '.join(self.classes)})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return self.backend.classes

    @property
    def is_concurrent(self) -> bool:
        """Whether several threads may use it at once; otherwise a lock serializes their calls."""
        return isinstance(self.detector, BlazeFace | FullImage) and isinstance(self.backend, OnnxBackend)

    def predict(self, images: object, color: str = "rgb") -> Faces | list[Faces]:
        """Return the faces of an image, or a list with the faces of each of several images.

        Args:
            images: An image: a path, an http(s) address, the bytes of a file, a Pillow image, or a uint8 array, (H, W)
                gray or (H, W, 3 or 4) in color. Several: a list of these, a folder, a pattern, or an array (N, H, W) or
                (N, H, W, 3 or 4). In a folder or pattern, videos and files that cannot be read are skipped with a
                warning.
            color: Order of the channels of arrays: rgb, or bgr as OpenCV reads them.

        Warns:
            FirstFrameOnly: An image has further frames or pages, which are not used.

        Raises:
            UserError: An image cannot be read, or `color` is unknown.
        """
        if color not in COLORS:
            raise UserError(f"color={color}: expected one of {', '.join(COLORS)}.")
        several = _several(images)
        is_found = several is not None and isinstance(images, str | Path)
        loaded = _load([images] if several is None else several, color, skip_unreadable=is_found)
        results: list[Faces] = []
        for batch in batches(loaded, lambda item: item[1].pixels.nbytes, self.batch_size):
            found = self.find_faces([image.pixels for _, image in batch])
            for (source, image), faces in zip(batch, found, strict=True):
                scaled = [replace(face, box=face.box.scaled(image.scale)) for face in faces]
                results.append(Faces(scaled, source, self.classes, color))
            batch.clear()  # frees the images before the next ones are read
        return results[0] if several is None else results

    def explain(self, faces: object, color: str = "rgb") -> "Image":
        """Return each face beside the Grad-CAM map of its most likely class: bright where the network found evidence.

        Args:
            faces: What `predict` returned, one of its faces, or images as `predict` takes them.
            color: Order of the channels of images that are arrays: rgb or bgr.

        Raises:
            UserError: There are no faces, they are of another model, the network has no maps, or an image cannot be
                read.
        """
        from PIL import Image

        from emotion.inference.annotate import annotate_crop, heat_legend

        found = _faces(faces)
        if found is None:
            found = _faces(self.predict(faces, color))
        if not found:
            raise UserError("explain() found no faces; expected the result of predict(), or an image with a face.")
        rows = [annotate_crop(*pair) for pair in zip(found, self.maps(found), strict=True)]
        return Image.fromarray(np.vstack([*rows, heat_legend(rows[0].shape[1])]))

    def maps(self, faces: Sequence[Face]) -> NDArray[np.float32]:
        """Return the Grad-CAM maps (N, side, side) from 0 to 1 of the faces' most likely classes; NaN without one.

        Raises:
            UserError: The faces are of another model, or the network has no maps.
        """
        shape = face_shape(self.backend.side, self.backend.channels)
        for face in faces:
            if (face.classes, face.pixels.shape) != (self.classes, shape):
                raise UserError(
                    f"Found a face {face.pixels.shape} of another model ({', '.join(face.classes)}); expected "
                    f"{shape}, {', '.join(self.classes)}. Pass what this model's predict() returned, or the image."
                )
        targets = np.array([face.probs.argmax() for face in faces])
        with self._lock:
            return self.backend.maps(np.stack([face.pixels for face in faces]), targets)

    def find_faces(self, images: Sequence[RGBImage]) -> list[list[Face]]:
        """Return the faces of each image (H, W, 3), the largest first."""
        with self._lock:
            return self._find_faces(images)

    def _find_faces(self, images: Sequence[RGBImage]) -> list[list[Face]]:
        boxes = [self.detector(image) for image in images]
        side, channels = self.backend.side, self.backend.channels
        crops = [crop(image, box, side, channels) for image, found in zip(images, boxes, strict=True) for box in found]
        starts = range(0, len(crops), self.batch_size)
        probs = [self.backend.probabilities(np.stack(crops[i : i + self.batch_size])) for i in starts]
        results = zip(np.concatenate(probs) if probs else (), crops, strict=True)
        return [[Face(box, self.classes, *next(results), self.min_confidence) for box in found] for found in boxes]


def _faces(value: object) -> list[Face] | None:
    """Return the faces in a face, a list of faces or a list of such lists; None for anything else."""
    if isinstance(value, Face):
        return [value]
    if not isinstance(value, list | tuple):
        return None
    nested = [_faces(item) for item in value]
    return None if None in nested else [face for faces in nested for face in faces or ()]


def _several(images: object) -> Sequence[object] | None:
    """Return the images that a list, an array of them, a folder or a pattern consists of; None for a single image."""
    if isinstance(images, list | tuple):
        return images
    if isinstance(images, np.ndarray):
        is_gray_stack = images.ndim == 3 and images.shape[2] not in (1, 2, 3, 4)
        return list(images) if images.ndim == 4 or is_gray_stack else None
    if not isinstance(images, str | Path) or is_address(str(images)):
        return None
    if not str(images):
        raise UserError("images='': expected the path or address of an image, a folder or a pattern.")
    if Path(images).suffix.lower() in VIDEO_SUFFIXES - SUFFIXES:
        raise UserError(f"{images} is a video, expected an image; use python -m emotion.predict source={images}.")
    return find_images(str(images), _warn)


def _load(sources: Iterable[object], color: str, skip_unreadable: bool) -> Iterator[tuple[object, LoadedImage]]:
    """Yield each source with its image, one at a time; `skip_unreadable` warns of those that cannot be read."""
    for source in sources:
        try:
            yield source, load_image(source, color)
        except UserError as error:
            if not skip_unreadable:
                raise
            _warn(str(error))


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)
