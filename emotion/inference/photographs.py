"""Crop the faces of photographs, to explain them."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion.checkpoints.ensemble import Ensemble
from emotion.data.crop import Detector, crop
from emotion.errors import UserError
from emotion.explainers.image_set import ImageSet, image_set_of_pixels
from emotion.inference.backends import SYNTHETIC_WARNING
from emotion.inference.detectors import FullImage
from emotion.inference.images import read_image
from emotion.inference.inputs import SourceFile, find_files
from emotion.inference.predictor import is_blank
from emotion.records.run_record import is_synthetic
from emotion.reporting.text import wrapped

EXPECTED = "an image, a folder or a pattern ('photos/*.jpg')"


class UnusableImage(UserError):
    """A file in which there is nothing to explain."""


class _Face(NamedTuple):
    """A cropped face."""

    name: str  # for captions
    pixels: NDArray[np.uint8]  # (S, S) or (S, S, 3)
    origin: dict[str, Any]  # its file, box and angle


def load_photographs(
    images: Sequence[str], detector: Detector, networks: Sequence[Ensemble]
) -> tuple[ImageSet, list[str]]:
    """Find the faces of image files and crop them at the largest size of the networks' training data.

    An image without a face, such as a narrow crop, is used as a whole, with a printed note. Videos and blank images are
    skipped with a warning.

    Returns:
        The faces, and a sentence about each file that cannot be read.

    Raises:
        UserError: No file remains, or a name in `images` matches none.
    """
    for network in networks:
        if is_synthetic(network.loaded):
            print(wrapped(SYNTHETIC_WARNING.format(name=network.name)))
    size, channels = map(max, zip(*(network.source_shape for network in networks), strict=True))
    faces: list[_Face] = []
    unreadable: list[str] = []
    skipped: list[str] = []
    for file in find_files(images, report=print, expected=EXPECTED):
        try:
            faces.extend(_crop_faces(file, detector, size, channels))
        except UnusableImage as error:
            skipped.append(str(error))
        except UserError as error:
            unreadable.append(str(error))
    if not faces:
        raise UserError("\n".join([*unreadable, *skipped]))
    for reason in skipped:
        print(f"warning: {reason}", file=sys.stderr)
    names, pixels, crops = zip(*faces, strict=True)
    return image_set_of_pixels(np.stack(pixels), names, networks[0].classes, ", ".join(images), crops), unreadable


def _crop_faces(file: SourceFile, detector: Detector, size: int, channels: int) -> Iterator[_Face]:
    """Yield the faces of a file, or all of an image in which none is found.

    Raises:
        UnusableImage: The file is a video, or the image is blank.
        UserError: The file cannot be read.
    """
    if file.is_video:
        raise UnusableImage(f"{file.path} is a video; expected images.")
    pixels, scale = read_image(file.path)
    boxes = detector(pixels)
    crops = [(box, crop(pixels, box, size, channels)) for box in boxes or FullImage()(pixels)]
    faces = [(box, face) for box, face in crops if not is_blank(face)]
    if not faces:
        raise UnusableImage(f"{file.path} is blank; expected a face.")
    if not boxes:
        print(f"{file.path}: no face was found; the whole image is explained.")
    for number, (box, face) in enumerate(faces, 1):
        name = f"{file.path.name}, face {number}" if len(faces) > 1 else file.path.name
        origin = {"file": str(file.path), "box": box.scaled(scale).xywh, "angle": round(float(box.angle), 1)}
        yield _Face(name, face, origin)
