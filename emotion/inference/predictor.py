"""From pictures to the faces in them and what they show."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emotion.inference.backends import Judge
from emotion.inference.detectors import Box, Detector, crop
from emotion.inference.images import Picture, Upright, as_picture


@dataclass(frozen=True, slots=True)
class Face:
    """A face that was found, and what it shows.

    Attributes:
        box: where, in pixels of the upright picture.
        classes: names in the order of `shares`.
        shares: the probabilities (K,).
        pixels: the face as the network saw it, (S, S) grey or (S, S, 3) RGB.
    """

    box: Box
    classes: tuple[str, ...]
    shares: NDArray[np.float32]
    pixels: NDArray[np.uint8]

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.classes[int(self.shares.argmax())]

    @property
    def probability(self) -> float:
        """Of the likeliest class."""
        return float(self.shares.max())

    @property
    def probabilities(self) -> dict[str, float]:
        """Of every class, by name."""
        return dict(zip(self.classes, map(float, self.shares), strict=True))


class Predictor:
    """Finds the faces of pictures and has them judged, many at a time.

    Args:
        judge: what takes faces for emotions.
        detector: what finds them.
        batch_size: faces that are judged together, at most.
    """

    def __init__(self, judge: Judge, detector: Detector, batch_size: int = 64) -> None:
        self.judge, self.detector, self.batch_size = judge, detector, batch_size

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the probabilities."""
        return self.judge.classes

    def predict(self, images: object) -> list[Face] | list[list[Face]]:
        """The faces of a picture, the largest first; of a list of pictures a list of such.

        A picture is a path, the bytes of a file, a Pillow image, or an array of uint8, (H, W) or RGB (H, W, 3). Grey
        arrays that are to be one picture come alone, not in an array (N, H, W).

        Raises:
            UserError: one of them is none.
        """
        if not isinstance(images, list | tuple):
            return self._placed([as_picture(images)])[0]
        return self._placed([as_picture(image) for image in images])

    def _placed(self, pictures: Sequence[Upright]) -> list[list[Face]]:
        """The faces of each picture, in pixels of what was given."""
        found = self.faces_of([picture.pixels for picture in pictures])
        return [
            [replace(face, box=face.box.enlarged(picture.factor)) for face in faces]
            for faces, picture in zip(found, pictures, strict=True)
        ]

    def faces_of(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """The faces of each picture (H, W, 3), the largest first."""
        boxes = [self.detector(picture) for picture in pictures]
        side, channels = self.judge.side, self.judge.channels
        pixels = [
            crop(picture, box, side, channels) for picture, found in zip(pictures, boxes, strict=True) for box in found
        ]
        batches = range(0, len(pixels), self.batch_size)
        shares = [self.judge.probabilities(np.stack(pixels[i : i + self.batch_size])) for i in batches]
        judged = iter(zip(pixels, np.concatenate(shares), strict=True)) if shares else iter(())
        return [
            [Face(box, self.classes, shares, face) for box, (face, shares) in zip(found, judged, strict=False)]
            for found in boxes
        ]
