"""OpenCV's face detectors, and the square of each face that FER2013 would have cropped.

The default detector is in `emotion.inference.blazeface`.

FER2013's faces were detected with OpenCV. Among 2,500 of its training faces, enlarged four times and with replicated
borders, the Haar detector below finds 1,963. Its squares are nearly FER2013's crops: the median center lies 0.50 across
and 0.49 down, and the median side is 0.97 of the crop's (90 % between 0.73 and 1.21). Other detectors are mapped to the
crop by the positions of eyes and mouth in it, `EYES` and `MOUTH`.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import cv2.data
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from emotion.config.compose import CONF, choices
from emotion.data.crop import Box, Detector, RGBImage
from emotion.errors import UserError

CASCADE = Path(cv2.data.haarcascades) / "haarcascade_frontalface_alt2.xml"
HAAR_SIDE = 0.97  # side of the detector's square as a fraction of the crop's
HAAR_OFFSET = 0.01  # how far the crop lies below the detector's square, as a fraction of its side
HAAR_STEP = 1.1  # ratio of successive face sizes
EYES, MOUTH = np.array([0.49, 0.38]), np.array([0.50, 0.79])  # their centers in a crop, x and y
EYE_DISTANCE = 0.38


class Haar:
    """OpenCV's cascade of boosted trees (Viola and Jones 2001), which comes with OpenCV and finds frontal faces.

    Args:
        max_side: Images with a longer side are shrunk to it first.
        min_face: Side of the smallest face as a fraction of the longer side.
        min_neighbors: Number of overlapping detections that make a face.

    Raises:
        UserError: An argument is out of range.
    """

    def __init__(self, max_side: int = 960, min_face: float = 0.04, min_neighbors: int = 4) -> None:
        if max_side < 48 or not 0 < min_face <= 1 or min_neighbors < 1:
            raise UserError(
                f"detector: max_side={max_side} min_face={min_face} min_neighbors={min_neighbors}; expected a side of "
                f"at least 48 pixels, a fraction of it up to 1, and a number of at least 1."
            )
        self.max_side, self.min_face, self.min_neighbors = max_side, min_face, min_neighbors
        self.cascade = cv2.CascadeClassifier(str(CASCADE))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.max_side, self.min_face, self.min_neighbors)  # a cascade cannot be pickled

    def __call__(self, image: RGBImage) -> list[Box]:
        """Return the faces of an image (H, W, 3), the largest first; the score is the last stage's weight."""
        gray, factor = _shrink(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), self.max_side)
        min_side = max(20, round(self.min_face * max(gray.shape)))
        squares, _, weights = self.cascade.detectMultiScale3(
            gray, HAAR_STEP, self.min_neighbors, minSize=(min_side, min_side), outputRejectLevels=True
        )
        boxes = []
        for (left, top, width, _), weight in zip(np.asarray(squares).tolist(), np.ravel(weights).tolist(), strict=True):
            side = width / HAAR_SIDE
            margin = (side - width) / 2
            boxes.append(Box(left - margin, top - margin + HAAR_OFFSET * side, side, weight).scaled(1 / factor))
        return largest_first(boxes)


class YuNet:
    """OpenCV's small convolutional detector (Wu et al. 2023), which also finds turned faces.

    Args:
        model: face_detection_yunet_2023mar.onnx of the OpenCV Zoo.
        threshold: Minimum score of a face.
        max_side: Images with a longer side are shrunk to it first.

    Raises:
        UserError: The file is missing, or OpenCV cannot read it.
    """

    def __init__(self, model: str, threshold: float = 0.7, max_side: int = 960) -> None:
        model = str(Path(model).expanduser())
        if not Path(model).is_file():
            raise UserError(
                f"detector.model={model} does not exist; expected face_detection_yunet_2023mar.onnx of the OpenCV Zoo "
                f"(github.com/opencv/opencv_zoo). Without it: detector=haar."
            )
        try:
            self.net = cv2.FaceDetectorYN.create(model, "", (320, 320), threshold)
        except cv2.error as error:
            raise UserError(
                f"detector.model={model} cannot be read by OpenCV ({error.err}); expected YuNet."
            ) from error
        self.model, self.threshold, self.max_side = model, threshold, max_side

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.model, self.threshold, self.max_side)  # OpenCV's network cannot be pickled

    def __call__(self, image: RGBImage) -> list[Box]:
        """Return the faces of an image (H, W, 3), the largest first."""
        bgr, factor = _shrink(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), self.max_side)
        self.net.setInputSize((bgr.shape[1], bgr.shape[0]))
        _, rows = self.net.detect(bgr)  # each: box, five landmarks, score
        boxes = [] if rows is None else [box_from_landmarks(row[4:14].reshape(5, 2) / factor, row[14]) for row in rows]
        return largest_first(boxes)


class FullImage:
    """No detection: the central square of each image is the face."""

    def __call__(self, image: RGBImage) -> list[Box]:
        """Return the central square of an image (H, W, 3)."""
        height, width = image.shape[:2]
        side = min(height, width)
        return [Box((width - side) / 2, (height - side) / 2, side, 1.0)]


def load_detector(name: str) -> Detector:
    """Return the detector of conf/detector/NAME.yaml, without Hydra, which takes time to import; YuNet for its file.

    Raises:
        UserError: There is no such config or file, or the detector has a setting without a value.
    """
    if name.endswith(".onnx"):
        return YuNet(name)
    if name not in (names := choices("detector")):
        raise UserError(
            f"detector={name}: expected one of {', '.join(names)}, the .onnx file of YuNet's model, or a detector of "
            f"your own, a callable."
        )
    from omegaconf import OmegaConf

    config = OmegaConf.load(CONF / "detector" / f"{name}.yaml")
    settings: Any = OmegaConf.to_container(config)
    module, _, target = settings.pop("_target_").rpartition(".")
    if missing := OmegaConf.missing_keys(config):
        needed = ", ".join(f"{key}=..." for key in sorted(missing))
        raise UserError(f"detector={name} needs {needed}; pass the detector itself, {module}.{target}({needed}).")
    detector: Detector = getattr(import_module(module), target)(**settings)
    return detector


def box_from_landmarks(landmarks: NDArray[np.floating], score: float) -> Box:
    """Return the square in which eyes and mouth are located as in FER2013.

    Landmarks are the eyes, the nose and the corners of the mouth (5, 2), x and y in pixels.
    """
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    side_from_eyes = float(np.linalg.norm(landmarks[1] - landmarks[0])) / EYE_DISTANCE
    side_from_mouth = float(np.linalg.norm(mouth - eyes)) / (MOUTH - EYES)[1]
    side = max(1.0, (side_from_eyes + side_from_mouth) / 2)
    left, top = (eyes + mouth) / 2 - side * (EYES + MOUTH) / 2
    return Box(float(left), float(top), side, float(score))


def _shrink(pixels: MatLike, max_side: int) -> tuple[MatLike, float]:
    """Return the pixels with a longer side of at most `max_side`, and the factor, at most 1."""
    height, width = pixels.shape[:2]
    if (factor := max_side / max(height, width)) >= 1:
        return pixels, 1.0
    size = max(1, round(factor * width)), max(1, round(factor * height))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), factor


def largest_first(boxes: list[Box]) -> list[Box]:
    """Return the boxes sorted by side."""
    return sorted(boxes, key=lambda box: -box.side)
