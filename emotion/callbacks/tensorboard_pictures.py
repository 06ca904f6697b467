"""Pictures in TensorBoard: the validation confusion matrix and the same few faces with their predictions."""

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from emotion.classifier import EmotionClassifier
from emotion.data.datamodule import EmotionDataModule
from emotion.reporting import figures


class TensorBoardPictures(L.Callback):
    """Adds both after every `every`-th validation; does nothing in a run without TensorBoard."""

    def __init__(self, faces: int = 16, every: int = 1) -> None:
        self.faces, self.every = faces, every

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the validation that has just ended."""
        boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if trainer.sanity_checking or not boards or (trainer.current_epoch + 1) % self.every:
            return
        assert isinstance(pl_module, EmotionClassifier)
        with pl_module.val_scores.sync_context():  # of all processes, which all ask for it
            confusion = pl_module.val_scores.confusion.cpu().numpy()
        if not trainer.is_global_zero:
            return
        title = f"validation, epoch {trainer.current_epoch + 1}"
        pictures = {
            "val/confusion": figures.confusion_matrix(confusion, pl_module.classes, title),
            "val/predictions": self._predictions(trainer.datamodule, pl_module),  # type: ignore[attr-defined]
        }
        for board in boards:
            for name, figure in pictures.items():
                board.add_figure(name, figure, trainer.global_step)

    def _predictions(self, data: EmotionDataModule, classifier: EmotionClassifier) -> Figure:
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
