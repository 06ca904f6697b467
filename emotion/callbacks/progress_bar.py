"""The progress bar of an epoch on a terminal."""

from lightning.pytorch.callbacks import RichProgressBar


class EpochProgressBar(RichProgressBar):
    """Lightning's RichProgressBar, whose epochs count from 1."""

    def _get_train_description(self, current_epoch: int) -> str:
        assert self.trainer.max_epochs is not None
        return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}".ljust(len(self.validation_description))
