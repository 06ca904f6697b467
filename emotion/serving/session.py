"""Process the demo's images: from the bytes of a file to the JSON that the page displays."""

import time
import warnings
from dataclasses import replace
from math import isnan
from typing import Any

import cv2
import numpy as np
from PIL import UnidentifiedImageError

from emotion.data.faces import face_shape
from emotion.data.readers.images import FORMATS
from emotion.errors import UserError
from emotion.inference.annotate import css_colors
from emotion.inference.images import FirstFrameOnly, read_image
from emotion.inference.predictor import Face, Predictor

JSON = dict[str, Any]
MAX_MAPS = 16  # per image, of the largest faces
MAX_MAP_SIDE = 64  # pixels; the page enlarges maps


class UnsupportedImage(UserError):
    """The file has none of the supported formats."""


class Session:
    """Process images of at most `megapixels`; one at a time, unless the predictor is concurrent."""

    def __init__(self, predictor: Predictor, megapixels: float) -> None:
        self.predictor, self.max_pixels = predictor, round(megapixels * 1e6)
        self.maps_unavailable: str | None = None  # the reason
        backend = predictor.backend
        blank = np.zeros((1, *face_shape(backend.side, backend.channels)), np.uint8)
        try:
            backend.maps(blank, np.zeros(1, np.int64))  # also prepares the first image's
        except UserError as error:
            self.maps_unavailable = str(error)

    def about(self) -> JSON:
        """Describe the network."""
        backend = self.predictor.backend
        return {
            "name": backend.name,
            "classes": backend.classes,
            "colors": css_colors(backend.classes),
            "side": backend.side,
            "channels": backend.channels,
            "synthetic": backend.is_synthetic,
            "maps_unavailable": self.maps_unavailable,
        }

    def predict(self, content: bytes | bytearray, with_maps: bool) -> JSON:
        """Return the faces of an image file, the largest first, and the milliseconds taken.

        Raises:
            UnsupportedImage: The file has another format.
            UserError: The file is damaged or too large.
        """
        start = time.perf_counter()
        try:
            with warnings.catch_warnings(action="ignore", category=FirstFrameOnly):
                image = read_image(bytes(content), "The image", self.max_pixels)
        except UserError as error:
            if isinstance(error.__cause__, UnidentifiedImageError):
                raise UnsupportedImage(f"The file is not an image; expected {', '.join(FORMATS)}.") from error
            raise
        (faces,) = self.predictor.find_faces([image.pixels])
        maps = self._maps(faces[:MAX_MAPS]) if with_maps else []
        maps += [None] * (len(faces) - len(maps))
        return {
            "faces": [
                replace(face, box=face.box.scaled(image.scale)).to_dict() | {"map": face_map}
                for face, face_map in zip(faces, maps, strict=True)
            ],
            "milliseconds": round(1000 * (time.perf_counter() - start), 1),
        }

    def _maps(self, faces: list[Face]) -> list[JSON | None]:
        if self.maps_unavailable or not faces:
            return []
        maps = self.predictor.maps(faces)
        maps = maps - maps.min((1, 2), keepdims=True)
        maps /= maps.max((1, 2), keepdims=True).clip(1e-7)
        if maps.shape[-1] > MAX_MAP_SIDE:
            resized = [cv2.resize(one, (MAX_MAP_SIDE, MAX_MAP_SIDE), interpolation=cv2.INTER_AREA) for one in maps]
            maps = np.asarray(resized, np.float32)
        _, height, width = maps.shape
        return [
            None if isnan(values[0]) else {"width": width, "height": height, "values": values}
            for values in maps.reshape(len(maps), -1).astype(float).round(3).tolist()
        ]
