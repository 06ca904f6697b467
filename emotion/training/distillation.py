"""Knowledge distillation: a student learns a trained teacher's probabilities besides the labels.

Hinton et al. 2015, https://arxiv.org/abs/1503.02531.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import MISSING
from torch import Tensor
from torch.nn.functional import kl_div

from emotion.checkpoints.load import Loaded, check_classes, load_checkpoint
from emotion.classifier import EmotionClassifier
from emotion.config.compose import listed
from emotion.config.instantiate import build
from emotion.errors import UserError


def teacher_of(settings: Mapping[str, Any], classes: Sequence[str]) -> "Teacher":
    """The runs or checkpoints that `settings["teacher"]` names, as one teacher; the rest are `Teacher`'s settings.

    Raises:
        UserError: none is named, one is missing, or one does not tell `classes` apart.
    """
    figures = dict(settings)
    named = figures.pop("teacher", None)
    if not named or named == MISSING:
        raise UserError(
            "distillation.teacher names no teacher; expected the folder of a run, a .ckpt file or several of them: "
            "distillation.teacher=RUN or distillation.teacher=[RUN,RUN]."
        )
    try:
        loaded = [load_checkpoint(source) for source in listed(named)]
    except UserError as error:
        raise UserError(f"distillation.teacher: {error}") from error
    for one in loaded:
        check_classes(one.path, one.classifier.classes, classes)
    teacher: Teacher = build({**figures, "_target_": f"{__name__}.Teacher"}, loaded)
    return teacher


class Teacher:
    """Trained classifiers, in evaluation mode and without gradients, whose mean a student learns.

    It is no part of the student: no module, so in no state_dict, and shared by the student's deep copies.

    Args:
        loaded: the classifiers; they move to the student's device at first use.
        temperature: divides the logits of both: the higher, the more the less likely classes count.
        weight: of the teacher in the loss, from 0 to 1; the labels have the rest.

    Raises:
        ValueError: a temperature or weight out of range.
    """

    def __init__(self, loaded: Sequence[Loaded], temperature: float = 4.0, weight: float = 0.5) -> None:
        if not 0 < temperature < float("inf") or not 0 <= weight <= 1:
            raise ValueError(f"temperature={temperature}, weight={weight}; expected above 0, and from 0 to 1.")
        self.loaded, self.temperature, self.weight = loaded, temperature, weight
        for one in loaded:
            one.classifier.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teacher":
        return self

    @property
    def classifiers(self) -> list[EmotionClassifier]:
        """The trained classifiers that teach."""
        return [one.classifier for one in self.loaded]

    def loss(self, label_loss: Tensor, logits: Tensor, faces: Tensor) -> Tensor:
        """(1 - weight) of the labels' loss () and weight T^2 KL(teacher || student), of logits (B, K), faces as below.

        T^2 keeps the size of the second part's gradient, which falls with the temperature squared.
        """
        student = (logits.float() / self.temperature).log_softmax(-1)
        divergence = kl_div(student, self.probabilities(faces), reduction="batchmean")
        return (1 - self.weight) * label_loss + self.weight * self.temperature**2 * divergence

    @torch.no_grad()
    def probabilities(self, faces: Tensor) -> Tensor:
        """Faces (B, 1 or 3, S, S) from 0 to 1 to the mean of the softened probabilities (B, K)."""
        softened = []
        for classifier in self.classifiers:
            classifier.to(faces.device)
            takes = classifier.preprocess
            logits = classifier(takes.finish(takes.reduce(faces)))
            softened.append((logits.float() / self.temperature).softmax(-1))
        return torch.stack(softened).mean(0)

    def description(self) -> dict[str, Any]:
        """For the run record: how it teaches, and each checkpoint's path, epoch and digest."""
        teachers = [
            {
                "path": str(one.path),
                "epoch": one.epoch,
                "sha256": hashlib.sha256(one.path.read_bytes()).hexdigest(),
            }
            for one in self.loaded
        ]
        return {"temperature": self.temperature, "weight": self.weight, "teachers": teachers}
