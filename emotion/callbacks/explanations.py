"""Explanations of the same validation faces in TensorBoard, epoch by epoch."""

from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from emotion.classifier import EmotionClassifier
from emotion.data.datamodule import EmotionDataModule
from emotion.explainers import sheets
from emotion.explainers.explainer import Explainer
from emotion.explainers.explanation import Explanation
from emotion.explainers.image_set import ImageSet, image_set_of_rows, sample_balanced


class ExplanationPictures(L.Callback):
    """Add maps of the predicted classes to TensorBoard after every `every_n_epochs`-th epoch; training is unaffected.

    The same `faces` validation faces, balanced over the classes, are explained each time.
    """

    def __init__(self, explainer: Explainer, faces: int = 14, every_n_epochs: int = 1) -> None:
        self.explainer, self.faces, self.every_n_epochs = explainer, faces, every_n_epochs
        self.images: ImageSet | None = None

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Explain the predictions of the network that was validated."""
        boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        is_due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if trainer.sanity_checking or not trainer.is_global_zero or not boards or not is_due:
            return
        assert isinstance(pl_module, EmotionClassifier)
        if self.images is None:
            data: EmotionDataModule = trainer.datamodule  # type: ignore[attr-defined]
            self.images = image_set_of_rows(data, sample_balanced(data.split.val, data.labels, self.faces, seed=0))
        with (
            torch.inference_mode(False),
            torch.autocast(pl_module.device.type, enabled=False),
            _no_gradients(pl_module),
        ):
            figure = self._plot(pl_module, self.images)
        for board in boards:
            board.add_figure("val/explanations", figure, trainer.global_step)

    def _plot(self, classifier: EmotionClassifier, images: ImageSet) -> Figure:
        preprocess = classifier.preprocess
        faces = preprocess.transform(images.faces.to(classifier.device))
        with torch.no_grad():
            probabilities = classifier.calibrated_probabilities(faces)
        targets = probabilities.argmax(1)
        maps = preprocess.maps_to_faces(self.explainer(classifier, faces, targets), *images.faces.shape[-2:])
        name, signed = type(self.explainer).__name__, self.explainer.signed
        explanation = Explanation("", name, signed, maps.cpu(), targets.cpu(), probabilities.cpu())
        return sheets.plot_sheet(images, [explanation], len(targets))


@contextmanager
def _no_gradients(classifier: EmotionClassifier) -> Iterator[None]:
    """Hide the gradients of the parameters, which an explainer would add to or clear, and restore them afterwards."""
    states = [(parameter, parameter.requires_grad, parameter.grad) for parameter in classifier.parameters()]
    for parameter, _, _ in states:
        parameter.requires_grad_(False)
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, requires_grad, grad in states:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
