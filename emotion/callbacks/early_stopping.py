"""Early stopping that counts trained epochs of the whole network and takes a new patience when a run is resumed."""

from typing import Any

import lightning as L
from lightning.pytorch import callbacks

from emotion.callbacks.staged_unfreezing import FOREVER, StagedUnfreezing


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's EarlyStopping, from the last stage of a staged training on.

    Lightning restores the patience stored in the checkpoint; this callback keeps the configured one.
    """

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the metric, unless a part of the network is still frozen."""
        if _is_last_stage(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Do the same if validation takes place within the epoch."""
        if _is_last_stage(trainer):
            super().on_validation_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score and the count of epochs without improvement."""
        super().load_state_dict(state_dict | {"patience": self.patience})


def _is_last_stage(trainer: L.Trainer) -> bool:
    stages = StagedUnfreezing.of(trainer)
    return stages is None or stages.end(trainer.current_epoch) == FOREVER
