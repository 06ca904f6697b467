"""Find the faces of images and classify their expressions."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emotion.errors import UserError
from emotion.inference.backends import Backend
from emotion.inference.blazeface import BlazeFace
from emotion.inference.detectors import Box, Detector, FullImage, crop
from emotion.inference.images import COLORS, RGBImage, batches, load_image
from emotion.inference.inputs import find_images
from emotion.inference.onnx_backend import OnnxBackend

if TYPE_CHECKING:
    from pandas import DataFrame
    from PIL.Image import Image

UNCLEAR = "unclear"
"""Label of a blank face, and of one whose most likely class is less likely than `min_confidence`."""

MIN_CONTRAST = 4.0  # standard deviation of grey levels; 99.9 % of FER2013's faces have more than 16


@dataclass(frozen=True, slots=True, repr=False)
class Face:
    """A face and its expression.

    Attributes:
        box: Its square in pixels of the upright image.
        classes: Class names in the order of `probs`.
        probs: Probabilities (K,).
        pixels: The face as the network saw it, (S, S) grey or (S, S, 3) RGB.
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
    def probabilities(self) -> dict[str, float]:
        """Probability of every class by name."""
        return dict(zip(self.classes, map(float, self.probs), strict=True))

    @property
    def is_blank(self) -> bool:
        """Whether all pixels have nearly the same brightness, which no face has."""
        return float(self.pixels.reshape(*self.pixels.shape[:2], -1).mean(2).std()) < MIN_CONTRAST

    def to_dict(self) -> dict[str, Any]:
        """Return box (left, top, width, height), angle, score, label and probabilities, rounded, for JSON."""
        left, top, side, score, angle = self.box
        return {
            "box": [round(float(value), 1) for value in (left, top, side, side)],
            "angle": round(float(angle), 1),
            "score": round(float(score), 3),
            "label": self.label,
            "probability": round(self.probability, 4),
            "probabilities": {name: round(value, 4) for name, value in self.probabilities.items()},
        }

    def to_row(self) -> dict[str, Any]:
        """Return the values of `to_dict` by column: left, top, width, height, ..., and the name of each class."""
        values = self.to_dict()
        row: dict[str, Any] = dict(zip(("left", "top", "width", "height"), values.pop("box"), strict=True))
        probabilities: dict[str, float] = values.pop("probabilities")
        return row | values | probabilities

    def plot(self) -> "Image":
        """Return the face as the network saw it, with its probabilities."""
        from PIL import Image

        from emotion.inference.annotate import annotate_crop

        return Image.fromarray(annotate_crop(self))

    def _repr_png_(self) -> bytes | None:
        """Show the plot in a notebook."""
        return self.plot()._repr_png_()

    def __repr__(self) -> str:
        left, top, side = map(round, self.box[:3])
        return f"Face({self.label} {self.probability:.0%}, left={left}, top={top}, side={side})"


class Faces(list[Face]):
    """The faces of one image, the largest first.

    Args:
        faces: The faces.
        image: The image as it was passed; `plot` decodes it again, so that results stay small.
        color: Order of the channels if it is an array: rgb or bgr.
    """

    def __init__(self, faces: Iterable[Face], image: object, color: str = "rgb") -> None:
        super().__init__(faces)
        self.image, self.color = image, color

    def to_dict(self) -> list[dict[str, Any]]:
        """Return `Face.to_dict` of each face."""
        return [face.to_dict() for face in self]

    def to_dataframe(self) -> "DataFrame":
        """Return one row per face: left, top, width, height, angle, score, label, probability, each class.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise UserError("to_dataframe() needs pandas, which is not installed: pip install pandas.") from error
        return pd.DataFrame([face.to_row() for face in self])

    def plot(self) -> "Image":
        """Return the image with its boxes, labels and probabilities."""
        from PIL import Image

        from emotion.inference.annotate import annotate

        loaded = load_image(self.image, self.color)
        faces = [replace(face, box=face.box.scaled(1 / loaded.scale)) for face in self]
        return Image.fromarray(annotate(loaded.pixels, faces))

    def save(self, path: str | Path) -> None:
        """Write `plot` as an image file; the suffix sets the format."""
        self.plot().save(path)

    def _repr_png_(self) -> bytes | None:
        """Show the plot in a notebook."""
        return self.plot()._repr_png_()


class Predictor:
    """A face detector and a classifier.

    Args:
        backend: Classifies faces.
        detector: Finds faces.
        min_confidence: Probability of the most likely class below which a face is labelled `UNCLEAR`.
        batch_size: Maximum number of faces classified together.

    Raises:
        UserError: `min_confidence` is not between 0 and 1.
    """

    def __init__(self, backend: Backend, detector: Detector, min_confidence: float = 0.0, batch_size: int = 64) -> None:
        if not 0 <= min_confidence <= 1:
            raise UserError(f"min_confidence={min_confidence}: expected a probability from 0 to 1.")
        self.backend, self.detector, self.batch_size = backend, detector, batch_size
        self.min_confidence = min_confidence

    def __repr__(self) -> str:
        detector = type(self.detector).__name__
        return f"Predictor({self.backend.name}, detector={detector}, classes={', '.join(self.classes)})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return self.backend.classes

    @property
    def is_concurrent(self) -> bool:
        """Whether several threads may use it at once."""
        return isinstance(self.detector, BlazeFace | FullImage) and isinstance(self.backend, OnnxBackend)

    def predict(self, images: object, color: str = "rgb") -> Faces | list[Faces]:
        """Return the faces of an image, or a list with the faces of each of several images.

        Args:
            images: An image: a path, an http(s) address, the bytes of a file, a Pillow image, or a uint8 array, (H, W)
                grey or (H, W, 3 or 4) in color. Several: a list of these, a folder, a pattern, or an array (N, H, W) or
                (N, H, W, 3 or 4).
            color: Order of the channels of arrays: rgb, or bgr as OpenCV reads them.

        Raises:
            UserError: An image cannot be read, or `color` is unknown.
        """
        if color not in COLORS:
            raise UserError(f"color={color}: expected one of {', '.join(COLORS)}.")
        several = _several(images)
        sources = [images] if several is None else several
        loaded = (load_image(source, color) for source in sources)
        results: list[Faces] = []
        for batch in batches(loaded, lambda image: image.pixels.nbytes, self.batch_size):
            for image, faces in zip(batch, self.find_faces([one.pixels for one in batch]), strict=True):
                scaled = [replace(face, box=face.box.scaled(image.scale)) for face in faces]
                results.append(Faces(scaled, sources[len(results)], color))
            batch.clear()  # frees the images before the next ones are read
        return results[0] if several is None else results

    def explain(self, faces: object, color: str = "rgb") -> "Image":
        """Return each face beside the Grad-CAM map of its most likely class: bright where the network found evidence.

        Args:
            faces: What `predict` returned, one of its faces, or images as `predict` takes them.
            color: Order of the channels of images that are arrays: rgb or bgr.

        Raises:
            UserError: There are no faces, the network has no maps, or an image cannot be read.
        """
        from PIL import Image

        from emotion.inference.annotate import annotate_crop

        found = _faces(faces)
        if found is None:
            found = _faces(self.predict(faces, color))
        if not found:
            raise UserError("explain() found no faces; expected the result of predict(), or an image with a face.")
        targets = np.array([face.probs.argmax() for face in found])
        maps = self.backend.maps(np.stack([face.pixels for face in found]), targets)
        return Image.fromarray(np.vstack([annotate_crop(*pair) for pair in zip(found, maps, strict=True)]))

    def find_faces(self, images: Sequence[RGBImage]) -> list[list[Face]]:
        """Return the faces of each image (H, W, 3), the largest first."""
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
        is_grey_stack = images.ndim == 3 and images.shape[2] not in (1, 3, 4)
        return list(images) if images.ndim == 4 or is_grey_stack else None
    return find_images(str(images), warnings.warn) if isinstance(images, str | Path) else None
