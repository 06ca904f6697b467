"""BlazeFace full range: a small convolutional face detector that comes with the package.

Bazarevsky et al. 2019, https://arxiv.org/abs/1907.05047; weights of MediaPipe under the Apache License 2.0, see NOTICE.

Each cell of a grid with a stride of 4 pixels predicts one face: its score, box and six keypoints. The network was
trained on images of 192 pixels; it is run on the image at several scales, and once more on every candidate, turned
upright and enlarged, which decides. In FER2013's training faces, enlarged four times and with replicated borders, the
median side of its boxes is 0.88 of FER2013's crop and their centers lie at 0.50 across and 0.54 down.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from emotion.data.crop import Box, RGBImage
from emotion.errors import UserError
from emotion.inference.detectors import largest_first

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MODEL = Path(__file__).parent / "full_range.onnx"
STRIDE = 32  # the sides of an image are multiples of it
SCALES = (384, 128)  # the longer side, in pixels; small and large faces are found at the first and the last
FINE_SCALE, LARGE = 640, 1000  # a third scale, for images whose longer side is at least so long
CANDIDATE = 0.2  # score from which a face is examined again
OVERLAP, NESTED = 0.3, 0.6  # intersection over union, and over the smaller box, of two boxes of one face
PATCH, PATCH_SIDE = 1.8, 128  # side of the examined patch: as a multiple of the box's, and in pixels
SLOPE, OFFSET = 5.33, 2.20  # of the probability's logit in the score's; 308 candidates of 39 photographs, 20 no faces
SIDE, DOWN = 1 / 0.88, 0.038  # FER2013's crop: side, and distance below the center, as multiples of the box's side
LEVEL_FROM = 15  # degrees from which a turned face is cropped upright


class BlazeFace:
    """Finds faces from about 20 pixels that look into the camera or to the side, turned by up to about 90 degrees.

    Args:
        threshold: Minimum probability that a detection is a face, from 0.01 to 1.

    Raises:
        UserError: The threshold is out of range.
    """

    def __init__(self, threshold: float = 0.75) -> None:
        if not 0.01 <= threshold <= 1:
            raise UserError(f"detector.threshold={threshold}: expected a probability from 0.01 to 1.")
        self.threshold = threshold
        self.session = _session()

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.threshold,)  # sessions cannot be pickled

    def __call__(self, image: RGBImage) -> list[Box]:
        """Return the faces of an image (H, W, 3), the largest first."""
        candidates = _merge(np.concatenate([self._candidates(pixels, factor) for pixels, factor in _pyramid(image)]))
        examined = [self._examine(image, row) for row in candidates]
        faces = [row for row in examined if _probability(row[0]) >= self.threshold]
        return largest_first([_box(row) for row in _merge(np.array(faces).reshape(-1, 17))])

    def _candidates(self, pixels: MatLike, factor: float) -> NDArray[np.float64]:
        """Return candidates (N, 17) in a resized image, in pixels of the image, which is `1 / factor` times as large.

        A row is the score, the box's center, width and height, and six keypoints: right and left eye, nose, mouth,
        right and left ear.
        """
        height, width = pixels.shape[:2]
        scores, faces = self._run(
            cv2.copyMakeBorder(pixels, 0, -height % STRIDE, 0, -width % STRIDE, cv2.BORDER_CONSTANT)
        )
        chosen = scores >= CANDIDATE
        return np.column_stack([scores[chosen], faces[chosen] / factor])

    def _examine(self, image: RGBImage, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Run the network on the surroundings of a candidate, with its eyes level; score 0 if they hold no face.

        Geometry is rounded to thousandths, so that blazeface.js cuts out the same pixels.
        """
        (right_x, right_y), (left_x, left_y) = row[5:7], row[7:9]
        angle = np.round(np.arctan2(left_y - right_y, left_x - right_x), 3)
        scale = np.round(PATCH * row[3:5].mean() / PATCH_SIDE, 3)
        rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        offset = np.round(row[1:3], 3) - rotation @ np.full(2, PATCH_SIDE / 2)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        patch = cv2.warpAffine(image, np.column_stack([rotation, offset]), (PATCH_SIDE, PATCH_SIDE), flags=flags)
        scores, faces = self._run(patch)
        best = int(scores.argmax())
        points = faces[best].reshape(8, 2)
        centered = np.abs(points[0] - PATCH_SIDE / 2).max() < PATCH_SIDE / 4
        size = np.full(2, scale * points[1].mean())
        center, *keypoints = points[[0, 2, 3, 4, 5, 6, 7]] @ rotation.T + offset
        return np.concatenate([[scores[best] if centered else 0.0], center, size, *keypoints])

    def _run(self, pixels: MatLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the scores (N,) and faces (N, 16) of all cells of an image whose sides are multiples of `STRIDE`."""
        channels = np.array(cv2.split(pixels), np.float32) / 127.5 - 1
        scores, faces = self.session.run(None, {"image": channels[None]})
        return scores.astype(np.float64), faces.astype(np.float64)


def _session() -> "InferenceSession":
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = 1  # small convolutions; more threads gain little
    return InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])


def _pyramid(image: RGBImage) -> list[tuple[MatLike, float]]:
    """Return the image at each scale, the largest first, and its factor; a larger one is shrunk to the next."""
    height, width = image.shape[:2]
    sides = (FINE_SCALE, *SCALES) if max(height, width) >= LARGE else SCALES
    resized = []
    larger: MatLike = image
    for factor in (side / max(height, width) for side in sides):
        size = max(1, round(width * factor)), max(1, round(height * factor))
        if factor < 1:
            pixels = larger = cv2.resize(larger, size, interpolation=cv2.INTER_AREA)
        else:
            pixels = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        resized.append((pixels, factor))
    return resized


def _merge(rows: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Merge the rows of one face: the highest score, and the mean geometry weighted by score."""
    rows = rows[np.argsort(-rows[:, 0])]
    merged = []
    while len(rows):
        overlap, nested = _overlaps(rows[0], rows)
        same = (overlap > OVERLAP) | (nested > NESTED)
        averaged = overlap > OVERLAP
        merged.append(np.append(rows[0, 0], np.average(rows[averaged, 1:], axis=0, weights=rows[averaged, 0])))
        rows = rows[~same]
    return merged


def _overlaps(one: NDArray[np.float64], rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return intersection over union, and over the smaller area, of one box and others."""
    low = np.maximum(one[1:3] - one[3:5] / 2, rows[:, 1:3] - rows[:, 3:5] / 2)
    high = np.minimum(one[1:3] + one[3:5] / 2, rows[:, 1:3] + rows[:, 3:5] / 2)
    shared = np.maximum(0, high - low).prod(1)
    area, areas = one[3:5].prod(), rows[:, 3:5].prod(1)
    return shared / (area + areas - shared), shared / np.minimum(area, areas)


def _box(row: NDArray[np.float64]) -> Box:
    """Return the square that FER2013 would crop, upright if the face is turned further than `LEVEL_FROM`."""
    angle = round(math.degrees(math.atan2(row[8] - row[6], row[7] - row[5])), 1)
    angle = angle if abs(angle) >= LEVEL_FROM else 0.0
    side = float(row[3:5].mean()) * SIDE
    center_x = float(row[1]) + math.sin(math.radians(angle)) * DOWN * side
    center_y = float(row[2]) - math.cos(math.radians(angle)) * DOWN * side
    return Box(center_x - side / 2, center_y - side / 2, side, _probability(row[0]), angle)


def _probability(score: float) -> float:
    """Return the probability that a detection with this score is a face (Platt scaling)."""
    score = min(max(float(score), 1e-6), 1 - 1e-6)
    return 1 / (1 + math.exp(-SLOPE * math.log(score / (1 - score)) - OFFSET))
