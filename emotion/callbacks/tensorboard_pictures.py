"""Figures in TensorBoard: the validation confusion matrix, and predictions for the same few faces."""

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from emotion.classifier import EmotionClassifier
from emotion.data.datamodule import EmotionDataModule
from emotion.reporting import figures
from emotion.reporting.text import short_source


class TensorBoardPictures(L.Callback):
    """Add both figures after every `every_n_epochs`-th validation of a run with a TensorBoard logger."""

    def __init__(self, faces: int = 16, every_n_epochs: int = 1) -> None:
        self.faces, self.every_n_epochs = faces, every_n_epochs

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Plot the validation that has just ended."""
        boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if trainer.sanity_checking or not boards or (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        assert isinstance(pl_module, EmotionClassifier)
        with pl_module.val_scores.sync_context():  # a collective call of all processes
            confusion = pl_module.val_scores.confusion.cpu().numpy()
        if not trainer.is_global_zero:
            return
        data: EmotionDataModule = trainer.datamodule  # type: ignore[attr-defined]
        source = short_source(data.faces.source)
        title = (
            f"{pl_module.network_name}, {source}, {confusion.sum():,} of validation, epoch {trainer.current_epoch + 1}"
        )
        plots = {
            "val/confusion": figures.confusion_matrix(confusion, pl_module.classes, title),
            "val/predictions": self._plot_predictions(data, pl_module),
        }
        for board in boards:
            for name, figure in plots.items():
                board.add_figure(name, figure, trainer.global_step)

    def _plot_predictions(self, data: EmotionDataModule, classifier: EmotionClassifier) -> Figure:
        rows = data.split.val[:: max(1, len(data.split.val) // self.faces)][: self.faces]
        pixels = torch.from_numpy(data.faces.images[rows]).to(classifier.device)
        with torch.autocast(classifier.device.type, enabled=False):
            probabilities, predicted = classifier.probabilities(pixels).cpu().max(-1)
        true = data.labels[rows]
        captions = [
            f"{classifier.classes[p]} {100 * q:.0f} %\n({classifier.classes[t]})"
            for p, q, t in zip(predicted.tolist(), probabilities.tolist(), true, strict=True)
        ]
        return figures.faces(data.faces.images[rows], captions, list(predicted.numpy() == true))
