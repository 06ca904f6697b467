"""Log the learning rate of every epoch with the epoch's metrics."""

import lightning as L


class LearningRates(L.Callback):
    """Log `lr`, or `lr/<group>` for several parameter groups, at the end of each epoch.

    Lightning's LearningRateMonitor logs separately from the epoch's metrics, and not at all in an epoch that is resumed
    in its middle; a resumed run must write the same rows as an uninterrupted one.
    """

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the current rates: those of the epoch's last step with a plateau schedule, those after it with others."""
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        for index, group in enumerate(groups):
            name = "lr" if len(groups) == 1 else f"lr/{group.get('name', index)}"
            pl_module.log(name, float(group["lr"]))
