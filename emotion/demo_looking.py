"""From the bytes of a picture to what the page shows of it."""

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import UnidentifiedImageError
from torch.nn.functional import interpolate

from emotion.data.images import FORMATS
from emotion.errors import UserError
from emotion.explainers.explanations import Explainer
from emotion.explainers.gradcam import GradCam
from emotion.inference.judge import Judge
from emotion.inference.pictures import read_picture
from emotion.inference.predictor import Face, Predictor
from emotion.inference.torch_judge import TorchJudge
from emotion.preprocess import values

if TYPE_CHECKING:
    from torch import Tensor

Answer = dict[str, Any]
LAYER = "features"  # whose maps every page shows
MAPPED = 16  # faces of one picture with a map, the largest
FINEST = 64  # pixels of a map's side; the page enlarges it


class NoPicture(UserError):
    """What came is of no format that is read."""


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
        self.explainer, self.without_maps = _explainer(predictor.judge)

    def about(self) -> Answer:
        """What the page says of the network."""
        judge = self.predictor.judge
        about = {"name": judge.name, "classes": judge.classes, "side": judge.side, "channels": judge.channels}
        return about | {"without_maps": self.without_maps}

    def look(self, content: bytes, with_maps: bool) -> Answer:
        """The faces of a PNG, JPEG, WEBP or BMP file, the largest first, and how long it took.

        Raises:
            NoPicture: it is none of these.
            UserError: it is damaged or too large.
        """
        began = time.perf_counter()
        try:
            picture = read_picture(content, "The picture", self.most)
        except UserError as error:
            if isinstance(error.__cause__, UnidentifiedImageError):
                raise NoPicture(f"This is no picture; expected {', '.join(FORMATS)}.") from error
            raise
        (found,) = self.predictor.faces_of([picture])
        maps = self._maps(found[:MAPPED]) if with_maps else []
        faces = [_described(face) | {"map": maps[i] if i < len(maps) else None} for i, face in enumerate(found)]
        return {"faces": faces, "milliseconds": round(1000 * (time.perf_counter() - began), 1)}

    def _maps(self, faces: list[Face]) -> list[Answer]:
        """Of each face's likeliest class, from 0 to 1."""
        if self.explainer is None or not faces:
            return []
        pixels = torch.from_numpy(np.stack([face.pixels for face in faces]))
        targets = torch.tensor([int(face.shares.argmax()) for face in faces])
        maps = self.explainer.maps(values(pixels), targets).clamp(0, 1)
        if maps.shape[-1] > FINEST:
            maps = interpolate(maps[:, None], (FINEST, FINEST), mode="area")[:, 0]
        return [_laid_out(one) for one in maps]


def _explainer(judge: Judge) -> tuple[Explainer | None, str | None]:
    """What makes a judge's maps, or why there are none; tried once, so that the first picture is no slower."""
    if not isinstance(judge, TorchJudge):
        return None, "There are no maps of an ONNX file: give the run or the .safetensors file that it was made of."
    explainer = Explainer(judge.ensemble, GradCam(LAYER))
    try:
        explainer.maps(torch.zeros(1, judge.channels, judge.side, judge.side), torch.zeros(1, dtype=torch.long))
    except UserError as error:
        return None, str(error)
    return explainer, None


def _described(face: Face) -> Answer:
    box = {"left": face.box.left, "top": face.box.top, "side": face.box.side}
    return {name: round(float(value), 2) for name, value in box.items()} | {"probabilities": face.shares.tolist()}


def _laid_out(one: "Tensor") -> Answer:
    height, width = one.shape
    return {"width": width, "height": height, "values": [round(value, 3) for value in one.flatten().tolist()]}
