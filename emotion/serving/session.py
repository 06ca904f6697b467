"""From the bytes of a picture to what the page shows of it."""

import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import UnidentifiedImageError
from torch.nn.functional import interpolate

from emotion.data.readers.images import FORMATS
from emotion.data.transforms.preprocess import values
from emotion.errors import UserError
from emotion.explainers.explainer import Explainer
from emotion.explainers.gradcam import GradCam
from emotion.inference.backends import Judge
from emotion.inference.images import read_picture
from emotion.inference.predictor import Face, Predictor
from emotion.inference.torch_backend import TorchJudge

Answer = dict[str, Any]
Maps = Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.float32]]
"""Faces (B, S, S) or (B, S, S, 3) and their probabilities (B, K) to maps (B, h, w) from 0 to 1."""

LAYER = "features"  # whose maps every page shows
MAPPED = 16  # faces of one picture with a map, the largest
FINEST = 64  # pixels of a map's side; the page enlarges it


class NoPicture(UserError):
    """What came is of no format that is read."""


@runtime_checkable
class MakesMaps(Protocol):
    """A judge that makes the maps itself, such as a file of ONNX."""

    def maps(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Grad-CAM of each face's likeliest class, (B, h, w)."""


class Looker:
    """Looks at pictures; for one thread at a time.

    Args:
        predictor: finds and judges the faces.
        megapixels: the most that a picture may have.

    Attributes:
        without_maps: why there are none of Grad-CAM; None where there are.
    """

    def __init__(self, predictor: Predictor, megapixels: float) -> None:
        self.predictor, self.most = predictor, round(megapixels * 1e6)
        self.maps, self.without_maps = _maker(predictor.judge)

    def about(self) -> Answer:
        """What the page says of the network."""
        judge = self.predictor.judge
        about = {"name": judge.name, "classes": judge.classes, "side": judge.side, "channels": judge.channels}
        return about | {"without_maps": self.without_maps}

    def look(self, content: bytes | bytearray, with_maps: bool) -> Answer:
        """The faces of a PNG, JPEG, WEBP or BMP file, the largest first, and how long it took.

        Raises:
            NoPicture: it is none of these.
            UserError: it is damaged or too large.
        """
        began = time.perf_counter()
        try:
            picture = read_picture(bytes(content), "The picture", self.most)
        except UserError as error:
            if isinstance(error.__cause__, UnidentifiedImageError):
                raise NoPicture(f"This is no picture; expected {', '.join(FORMATS)}.") from error
            raise
        (found,) = self.predictor.faces_of([picture.pixels])
        maps = self._maps(found[:MAPPED]) if with_maps else []
        faces = [
            _described(face, picture.factor) | {"map": maps[i] if i < len(maps) else None}
            for i, face in enumerate(found)
        ]
        return {"faces": faces, "milliseconds": round(1000 * (time.perf_counter() - began), 1)}

    def _maps(self, faces: list[Face]) -> list[Answer]:
        """Of each face's likeliest class, from 0 to 1."""
        if self.maps is None or not faces:
            return []
        maps = self.maps(np.stack([face.pixels for face in faces]), np.stack([face.shares for face in faces]))
        if maps.shape[-1] > FINEST:
            maps = interpolate(torch.from_numpy(maps)[:, None], (FINEST, FINEST), mode="area")[:, 0].numpy()
        return [_laid_out(one) for one in maps]


def _maker(judge: Judge) -> tuple[Maps | None, str | None]:
    """What makes a judge's maps, or why there are none; tried once, so that the first picture is no slower."""
    if isinstance(judge, TorchJudge):
        explainer = Explainer(judge.ensemble, GradCam(LAYER))

        def maps(faces: NDArray[np.uint8], shares: NDArray[np.float32]) -> NDArray[np.float32]:
            found = explainer.maps(values(torch.from_numpy(faces)), torch.from_numpy(shares.argmax(1)))
            return np.asarray(found.clamp(0, 1), np.float32)

    elif isinstance(judge, MakesMaps):

        def maps(faces: NDArray[np.uint8], shares: NDArray[np.float32]) -> NDArray[np.float32]:
            found = judge.maps(faces)
            found = found - found.min((1, 2), keepdims=True)  # as Grad-CAM's maps of torch are scaled
            return np.asarray(found / found.max((1, 2), keepdims=True).clip(1e-7), np.float32)

    else:
        return None, f"{judge.name} makes no maps."
    shape = (1, judge.side, judge.side, 3)[: 3 + (judge.channels == 3)]
    try:
        maps(np.zeros(shape, np.uint8), np.ones((1, len(judge.classes)), np.float32))
    except UserError as error:
        return None, str(error)
    return maps, None


def _described(face: Face, factor: float) -> Answer:
    left, top, side, _ = (round(float(value), 2) for value in face.box.enlarged(factor))
    return {"left": left, "top": top, "side": side, "probabilities": face.shares.tolist()}


def _laid_out(one: NDArray[np.float32]) -> Answer:
    height, width = one.shape
    return {"width": width, "height": height, "values": [round(value, 3) for value in one.ravel().tolist()]}
