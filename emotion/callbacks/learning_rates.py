"""The learning rate of every epoch, among the epoch's own metrics."""

import lightning as L


class LearningRates(L.Callback):
    """Logs `lr` (one parameter group) or `lr/<name>` at the end of each epoch.

    Lightning's LearningRateMonitor logs at an epoch's start, apart from the epoch's metrics, and not at all in an epoch
    that is resumed in its middle; a resumed run must write the same rows as an uninterrupted one.
    """

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the rates that the epoch's last step was taken with, or that its schedule has just set by step."""
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        for index, group in enumerate(groups):
            name = "lr" if len(groups) == 1 else f"lr/{group.get('name', index)}"
            pl_module.log(name, float(group["lr"]))
