"""Knowledge distillation: a student learns a trained teacher's probabilities in addition to the labels.

Hinton et al. 2015, https://arxiv.org/abs/1503.02531.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from emotion.checkpoints.load import LoadedCheckpoint, check_classes, load_checkpoint
from emotion.classifier import EmotionClassifier
from emotion.config.compose import as_list
from emotion.config.instantiate import instantiate
from emotion.data.transforms.preprocess import Preprocess
from emotion.errors import UserError
from emotion.io.digests import file_digest


def load_teacher(settings: Mapping[str, Any], classes: Sequence[str]) -> "Teacher":
    """Load the runs or checkpoints `settings["teacher"]` as one teacher; the other settings are arguments of `Teacher`.

    Raises:
        UserError: No teacher is given, one is missing, or one has other classes.
    """
    arguments = dict(settings)
    sources = arguments.pop("teacher", None)
    if not sources:
        raise UserError(
            "distillation.teacher is not given; expected a run folder, a .ckpt file or several of them: "
            "distillation.teacher=RUN or distillation.teacher=[RUN,RUN]."
        )
    try:
        checkpoints = [load_checkpoint(source) for source in as_list(sources)]
    except UserError as error:
        raise UserError(f"distillation.teacher: {error}") from error
    for checkpoint in checkpoints:
        check_classes(checkpoint.path, checkpoint.classifier.classes, classes)
    teacher: Teacher = instantiate({**arguments, "_target_": f"{__name__}.Teacher"}, checkpoints)
    return teacher


class Teacher:
    """Trained classifiers whose mean probabilities a student learns; they get no gradients.

    The teacher is not a module, so it is in no state_dict of the student and deep copies of the student share it.

    Args:
        checkpoints: The classifiers; they move to the student's device at first use.
        temperature: Divides the logits of student and teacher; a higher one gives unlikely classes more weight.
        weight: Weight of the teacher in the loss, from 0 to 1; the labels have the rest.

    Raises:
        ValueError: The temperature or the weight is out of range.
    """

    def __init__(self, checkpoints: Sequence[LoadedCheckpoint], temperature: float = 4.0, weight: float = 0.5) -> None:
        if not 0 < temperature < float("inf") or not 0 <= weight <= 1:
            raise ValueError(
                f"temperature={temperature}, weight={weight}; expected a temperature above 0, a weight from 0 to 1."
            )
        self.checkpoints, self.temperature, self.weight = checkpoints, temperature, weight
        for classifier in self.classifiers:
            classifier.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teacher":
        return self

    @property
    def classifiers(self) -> list[EmotionClassifier]:
        """The trained classifiers."""
        return [checkpoint.classifier for checkpoint in self.checkpoints]

    def loss(self, label_loss: Tensor, logits: Tensor, faces: Tensor, student: Preprocess) -> Tensor:
        """Return (1 - weight) label_loss + weight T^2 KL(teacher || student) for logits (B, K); faces as the student's.

        T^2 compensates for the gradient of the second term, which shrinks with T^2.
        """
        softened = (logits.float() / self.temperature).log_softmax(-1)
        divergence = kl_div(softened, self.probabilities(faces, student), reduction="batchmean")
        return (1 - self.weight) * label_loss + self.weight * self.temperature**2 * divergence

    @torch.no_grad()
    def probabilities(self, faces: Tensor, student: Preprocess) -> Tensor:
        """Return the teachers' mean softened probabilities (B, K) for the student's network input (B, 1 or 3, S, S).

        Each teacher sees the part of the face that it was trained on, as far as the student's input contains it.
        """
        faces = student.denormalize(faces)
        softened = []
        for classifier in self.classifiers:
            classifier.to(faces.device)
            logits = classifier(classifier.preprocess.after(student).transform(faces))
            softened.append((logits.float() / self.temperature).softmax(-1))
        return torch.stack(softened).mean(0)

    def description(self) -> dict[str, Any]:
        """Return the settings and each checkpoint's path, epoch and SHA-256 for the run record."""
        teachers = [
            {"path": str(one.path), "epoch": one.epoch + 1, "sha256": file_digest(one.path)} for one in self.checkpoints
        ]
        return {"temperature": self.temperature, "weight": self.weight, "teachers": teachers}
