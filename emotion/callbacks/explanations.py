"""What the network looks at, epoch by epoch in TensorBoard: the same validation faces under one method's maps."""

from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from emotion.classifier import EmotionClassifier
from emotion.data.datamodule import EmotionDataModule
from emotion.explainers import figures
from emotion.explainers.explainer import Method
from emotion.explainers.explanation import Explained, Subjects, balanced, of_rows


class ExplanationPictures(L.Callback):
    """Adds them after every `every`-th validation; does nothing in a run without TensorBoard, and nothing to training.

    Args:
        method: what explains the predicted class.
        faces: of validation, as many of each class, the same ones each time.
        every: epochs.
    """

    def __init__(self, method: Method, faces: int = 14, every: int = 1) -> None:
        self.method, self.faces, self.every = method, faces, every
        self.subjects: Subjects | None = None

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Explain the network as it was validated."""
        boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if trainer.sanity_checking or not trainer.is_global_zero or not boards or trainer.current_epoch % self.every:
            return
        assert isinstance(pl_module, EmotionClassifier)
        if self.subjects is None:
            data: EmotionDataModule = trainer.datamodule  # type: ignore[attr-defined]
            self.subjects = of_rows(data, balanced(data.split.val, data.labels, self.faces, seed=0))
        with torch.inference_mode(False), torch.autocast(pl_module.device.type, enabled=False), _untouched(pl_module):
            figure = self._sheet(pl_module, self.subjects)
        for board in boards:
            board.add_figure("val/explanations", figure, trainer.global_step)

    def _sheet(self, classifier: EmotionClassifier, subjects: Subjects) -> Figure:
        takes = classifier.preprocess
        faces = takes.take(subjects.faces.to(classifier.device))
        with torch.no_grad():
            probabilities = classifier.calibrated(faces)
        targets = probabilities.argmax(1)
        maps = takes.lay_back(self.method(classifier, faces, targets), *subjects.faces.shape[-2:])
        name, signed = type(self.method).__name__, self.method.signed
        one = Explained("", name, signed, maps.cpu(), targets.cpu(), probabilities.cpu(), 0.0, None, {})
        return figures.sheet(subjects, [one], len(targets))


@contextmanager
def _untouched(classifier: EmotionClassifier) -> Iterator[None]:
    """Takes parameters' gradients away, which a method would add to or clear, and brings them back."""
    former = [(parameter, parameter.requires_grad, parameter.grad) for parameter in classifier.parameters()]
    for parameter, _, _ in former:
        parameter.requires_grad_(False)
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, learns, grad in former:
            parameter.requires_grad_(learns)
            parameter.grad = grad
