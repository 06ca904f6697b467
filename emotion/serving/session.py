"""Process the demo's images: from the bytes of a file to the JSON that the page displays."""

import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import UnidentifiedImageError
from torch.nn.functional import interpolate

from emotion.data.readers.images import FORMATS
from emotion.data.transforms.preprocess import to_float
from emotion.errors import UserError
from emotion.explainers.explainer import EnsembleExplainer
from emotion.explainers.gradcam import GradCam
from emotion.inference.backends import Backend
from emotion.inference.images import read_image
from emotion.inference.predictor import Face, Predictor
from emotion.inference.torch_backend import TorchBackend

JSON = dict[str, Any]
MapFunction = Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.float32]]
"""Faces (B, S, S) or (B, S, S, 3) and their probabilities (B, K) to maps (B, h, w) from 0 to 1."""

LAYER = "features"
MAX_MAPS = 16  # per image, of the largest faces
MAX_MAP_SIDE = 64  # pixels; the page enlarges maps


class UnsupportedImage(UserError):
    """The file has none of the supported formats."""


@runtime_checkable
class MapBackend(Protocol):
    """A backend that computes Grad-CAM itself, such as an ONNX file."""

    def maps(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the Grad-CAM of each face's most likely class, (B, h, w)."""


class Session:
    """Process images, one at a time.

    Args:
        predictor: Finds and classifies faces.
        megapixels: Maximum size of an image.

    Attributes:
        maps_unavailable: Why there are no Grad-CAM maps; None if there are.
    """

    def __init__(self, predictor: Predictor, megapixels: float) -> None:
        self.predictor, self.max_pixels = predictor, round(megapixels * 1e6)
        self.compute_maps, self.maps_unavailable = _map_function(predictor.backend)

    def about(self) -> JSON:
        """Describe the network."""
        backend = self.predictor.backend
        about = {"name": backend.name, "classes": backend.classes, "side": backend.side, "channels": backend.channels}
        return about | {"maps_unavailable": self.maps_unavailable}

    def predict(self, content: bytes | bytearray, with_maps: bool) -> JSON:
        """Return the faces of a PNG, JPEG, WEBP or BMP file, the largest first, and the milliseconds taken.

        Raises:
            UnsupportedImage: The file has another format.
            UserError: The file is damaged or too large.
        """
        start = time.perf_counter()
        try:
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
                _face_json(face, image.scale) | {"map": face_map} for face, face_map in zip(faces, maps, strict=True)
            ],
            "milliseconds": round(1000 * (time.perf_counter() - start), 1),
        }

    def _maps(self, faces: list[Face]) -> list[JSON | None]:
        if self.compute_maps is None or not faces:
            return []
        maps = self.compute_maps(np.stack([face.pixels for face in faces]), np.stack([face.probs for face in faces]))
        if maps.shape[-1] > MAX_MAP_SIDE:
            maps = interpolate(torch.from_numpy(maps)[:, None], (MAX_MAP_SIDE, MAX_MAP_SIDE), mode="area")[:, 0].numpy()
        _, height, width = maps.shape
        return [{"width": width, "height": height, "values": face_map.ravel().round(3).tolist()} for face_map in maps]


def _map_function(backend: Backend) -> tuple[MapFunction | None, str | None]:
    """Return a backend's Grad-CAM, or why it has none; called once, so that the first image takes no longer."""
    if isinstance(backend, TorchBackend):
        explainer = EnsembleExplainer(backend.ensemble, GradCam(LAYER))

        def compute_maps(faces: NDArray[np.uint8], probs: NDArray[np.float32]) -> NDArray[np.float32]:
            maps = explainer.maps(to_float(torch.from_numpy(faces)), torch.from_numpy(probs.argmax(1)))
            return np.asarray(maps.clamp(0, 1), np.float32)

    elif isinstance(backend, MapBackend):

        def compute_maps(faces: NDArray[np.uint8], probs: NDArray[np.float32]) -> NDArray[np.float32]:
            maps = backend.maps(faces)
            maps = maps - maps.min((1, 2), keepdims=True)  # scaled as by `GradCam`
            return np.asarray(maps / maps.max((1, 2), keepdims=True).clip(1e-7), np.float32)

    else:
        return None, f"{backend.name} does not support Grad-CAM."
    shape = (1, backend.side, backend.side, 3)[: 4 if backend.channels == 3 else 3]
    try:
        compute_maps(np.zeros(shape, np.uint8), np.ones((1, len(backend.classes)), np.float32))
    except UserError as error:
        return None, str(error)
    return compute_maps, None


def _face_json(face: Face, scale: float) -> JSON:
    left, top, side = (round(float(value), 2) for value in face.box.scaled(scale)[:3])
    return {"left": left, "top": top, "side": side, "probabilities": face.probs.tolist()}
