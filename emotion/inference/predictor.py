"""Find the faces of images and classify their expressions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emotion.inference.backends import Backend
from emotion.inference.detectors import Box, Detector, crop
from emotion.inference.images import RGBImage, load_image


@dataclass(frozen=True, slots=True, repr=False)
class Face:
    """A face and its expression.

    Attributes:
        box: Its square in pixels of the upright image.
        classes: Class names in the order of `probs`.
        probs: Probabilities (K,).
        pixels: The face as the network saw it, (S, S) grey or (S, S, 3) RGB.
    """

    box: Box
    classes: tuple[str, ...]
    probs: NDArray[np.float32]
    pixels: NDArray[np.uint8]

    @property
    def label(self) -> str:
        """The most likely class."""
        return self.classes[int(self.probs.argmax())]

    @property
    def probability(self) -> float:
        """Probability of the most likely class."""
        return float(self.probs.max())

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability of every class by name."""
        return dict(zip(self.classes, map(float, self.probs), strict=True))

    def __repr__(self) -> str:
        left, top, side = map(round, self.box[:3])
        return f"Face({self.label} {self.probability:.0%}, left={left}, top={top}, side={side})"


class Predictor:
    """A face detector and a classifier.

    Args:
        backend: Classifies faces.
        detector: Finds faces.
        batch_size: Maximum number of faces classified together.
    """

    def __init__(self, backend: Backend, detector: Detector, batch_size: int = 64) -> None:
        self.backend, self.detector, self.batch_size = backend, detector, batch_size

    def __repr__(self) -> str:
        detector = type(self.detector).__name__
        return f"Predictor({self.backend.name}, detector={detector}, classes={', '.join(self.classes)})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return self.backend.classes

    def predict(self, images: object) -> list[Face] | list[list[Face]]:
        """Return the faces of an image, the largest first, or of each image of a list.

        Args:
            images: A path, the bytes of a file, a Pillow image, or a uint8 array, (H, W) or RGB (H, W, 3); or a list of
                these. An array (N, H, W) is not accepted as a list.

        Raises:
            UserError: An image cannot be read.
        """
        many = isinstance(images, list | tuple)
        loaded = [load_image(image) for image in (images if many else [images])]  # type: ignore[attr-defined]
        faces = [
            [replace(face, box=face.box.scaled(image.scale)) for face in faces]
            for faces, image in zip(self.find_faces([image.pixels for image in loaded]), loaded, strict=True)
        ]
        return faces if many else faces[0]

    def find_faces(self, images: Sequence[RGBImage]) -> list[list[Face]]:
        """Return the faces of each image (H, W, 3), the largest first."""
        boxes = [self.detector(image) for image in images]
        side, channels = self.backend.side, self.backend.channels
        crops = [crop(image, box, side, channels) for image, found in zip(images, boxes, strict=True) for box in found]
        starts = range(0, len(crops), self.batch_size)
        probs = [self.backend.probabilities(np.stack(crops[i : i + self.batch_size])) for i in starts]
        results = zip(np.concatenate(probs) if probs else (), crops, strict=True)
        return [[Face(box, self.classes, *next(results)) for box in found] for found in boxes]
