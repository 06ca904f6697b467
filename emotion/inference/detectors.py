"""Where the faces of a picture are, and which square of it is the face as FER2013 crops one.

FER2013's faces were found with OpenCV's detector. On 2,500 of its Training faces, enlarged four times and with their
borders drawn out, the Haar detector below finds 1,963, centred at medians of 0.50 across and 0.49 down, its side 0.97
of theirs (nine in ten between 0.73 and 1.21). So its square, hardly enlarged, is the crop; other detectors are brought
to it by where eyes and mouth lie there, see `emotion.data.transforms.corruptions`.
"""

from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import cv2.data
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from emotion.errors import UserError
from emotion.inference.images import Picture

HAAR_SIDE = 0.97  # of the crop's
HAAR_LOWER = 0.01  # of the crop's side: by how much that lies lower than the detector's square
HAAR_STEP = 1.1  # from one size of face to the next
CASCADE = Path(cv2.data.haarcascades) / "haarcascade_frontalface_alt2.xml"
EYES, MOUTH = np.array([0.49, 0.38]), np.array([0.50, 0.79])  # where they lie in a crop, across and down
EYE_DISTANCE = 0.38


class Box(NamedTuple):
    """A square of a picture that may reach over its edge, in pixels, and how sure the detector is of the face."""

    left: float
    top: float
    side: float
    score: float

    def enlarged(self, factor: float) -> "Box":
        """The same square of a picture that is so many times as large."""
        return Box(self.left * factor, self.top * factor, self.side * factor, self.score)


class Detector(Protocol):
    """Finds faces; it is used by one thread at a time."""

    def __call__(self, picture: Picture) -> list[Box]:
        """The faces of a picture, the largest first."""


class Haar:
    """OpenCV's cascade of boosted trees (Viola and Jones 2001), which needs nothing besides; faces from the front.

    Args:
        longest: the longer side of the picture in which it looks; a larger one is shrunk to that.
        smallest: the least side of a face, as a share of that.
        neighbours: how many overlapping finds make a face.
    """

    def __init__(self, longest: int = 960, smallest: float = 0.04, neighbours: int = 4) -> None:
        if longest < 48 or not 0 < smallest <= 1 or neighbours < 1:
            raise UserError(
                f"detector: longest={longest} smallest={smallest} neighbours={neighbours}; expected a side from 48 "
                f"pixels on, a share of it up to 1, and a number from 1 on."
            )
        self.longest, self.smallest, self.neighbours = longest, smallest, neighbours
        self.cascade = cv2.CascadeClassifier(str(CASCADE))

    def __call__(self, picture: Picture) -> list[Box]:
        """The faces of a picture, the largest first; the score is the cascade's weight of its last stage."""
        grey, shrunk = _shrunk(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), self.longest)
        least = max(20, round(self.smallest * max(grey.shape)))
        found, _, weights = self.cascade.detectMultiScale3(
            grey, HAAR_STEP, self.neighbours, minSize=(least, least), outputRejectLevels=True
        )
        boxes = []
        for (left, top, width, _), weight in zip(np.asarray(found).tolist(), np.ravel(weights).tolist(), strict=True):
            side = width / HAAR_SIDE
            edge = (side - width) / 2
            boxes.append(Box(left - edge, top - edge + HAAR_LOWER * side, side, weight).enlarged(1 / shrunk))
        return _largest_first(boxes)


class YuNet:
    """OpenCV's small convolutional detector (Wu et al. 2023), which finds turned faces as well.

    Args:
        model: its file, face_detection_yunet_2023mar.onnx of the OpenCV Zoo.
        threshold: the least score of a face.
        longest: the longer side of the picture in which it looks.

    Raises:
        UserError: the file is missing or is none.
    """

    def __init__(self, model: str, threshold: float = 0.7, longest: int = 960) -> None:
        if not Path(model).is_file():
            raise UserError(
                f"detector.model={model} is not there; expected face_detection_yunet_2023mar.onnx of the OpenCV Zoo "
                f"(github.com/opencv/opencv_zoo). Without it: detector=haar."
            )
        try:
            self.net = cv2.FaceDetectorYN.create(model, "", (320, 320), threshold)
        except cv2.error as error:
            raise UserError(
                f"detector.model={model} cannot be read by OpenCV ({error.err}); expected YuNet."
            ) from error
        self.longest = longest

    def __call__(self, picture: Picture) -> list[Box]:
        """The faces of a picture, the largest first."""
        bgr, shrunk = _shrunk(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), self.longest)
        self.net.setInputSize((bgr.shape[1], bgr.shape[0]))
        _, found = self.net.detect(bgr)
        boxes = [] if found is None else [crop_of(row[4:14].reshape(5, 2) / shrunk, float(row[14])) for row in found]
        return _largest_first(boxes)


class Whole:
    """The picture is the face already: the middle square of it."""

    def __call__(self, picture: Picture) -> list[Box]:
        """One face, the whole."""
        height, width = picture.shape[:2]
        side = min(height, width)
        return [Box((width - side) / 2, (height - side) / 2, side, 1.0)]


def crop_of(landmarks: NDArray[np.floating], score: float) -> Box:
    """The square in which two eyes, the nose and two corners of the mouth (5, 2) lie as they do in FER2013."""
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    across = float(np.linalg.norm(landmarks[1] - landmarks[0])) / EYE_DISTANCE
    down = float(np.linalg.norm(mouth - eyes)) / (MOUTH - EYES)[1]
    side = max(1.0, (across + down) / 2)
    left, top = (eyes + mouth) / 2 - side * (EYES + MOUTH) / 2
    return Box(float(left), float(top), side, score)


def crop(picture: Picture, box: Box, side: int, channels: int) -> NDArray[np.uint8]:
    """The face in `box` as the network's source stores one: (side, side) grey, or (side, side, 3) RGB.

    What lies over the picture's edge is its edge drawn out.
    """
    left, top = round(box.left), round(box.top)
    right, bottom = left + max(1, round(box.side)), top + max(1, round(box.side))
    height, width = picture.shape[:2]
    inside: MatLike = picture[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    over = (max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width))
    if any(over):
        inside = cv2.copyMakeBorder(inside, *over, cv2.BORDER_REPLICATE)
    if channels == 1:
        inside = cv2.cvtColor(inside, cv2.COLOR_RGB2GRAY)
    smaller = inside.shape[0] > side
    resized = cv2.resize(inside, (side, side), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized, np.uint8)


def _shrunk(pixels: MatLike, longest: int) -> tuple[MatLike, float]:
    """Pixels whose longer side is at most `longest`, and by how much they were shrunk."""
    height, width = pixels.shape[:2]
    if (factor := longest / max(height, width)) >= 1:
        return pixels, 1.0
    size = max(1, round(factor * width)), max(1, round(factor * height))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), factor


def _largest_first(boxes: list[Box]) -> list[Box]:
    return sorted(boxes, key=lambda box: -box.side)
