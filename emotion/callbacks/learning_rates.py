"""Log the learning rate of every epoch with the epoch's metrics."""

import lightning as L
import torch

from emotion.classifier import EmotionClassifier


class LearningRates(L.Callback):
    """Log `lr`, or `lr/<group>` for several parameter groups, at the end of each epoch.

    Lightning's LearningRateMonitor logs separately from the epoch's metrics, and not at all in an epoch that is resumed
    in its middle; a resumed run must write the same rows as an uninterrupted one.
    """

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the rates of the epoch's last step, in the double precision that they have."""
        assert isinstance(pl_module, EmotionClassifier)
        groups = trainer.optimizers[0].param_groups
        for index, (group, rate) in enumerate(zip(groups, pl_module.step_rates, strict=True)):
            name = "lr" if len(groups) == 1 else f"lr/{group.get('name', index)}"
            pl_module.log(name, torch.tensor(rate, dtype=torch.float64))
