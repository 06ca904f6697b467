"""Says at the start what an epoch and the whole run will take on this machine, and how to stop and resume."""

import time

import lightning as L
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.types import STEP_OUTPUT

FORWARD_SHARE = 0.3  # of a training step's time: what a face costs in validation


class TimeEstimate(L.Callback):
    """Times a few batches, after one that warms up, and speaks once."""

    def __init__(self, run_dir: str, batches: int = 4) -> None:
        self.run_dir, self.batches = run_dir, batches
        self.seen = 0
        self.started = 0.0
        self.spoken = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        """Start the clock after the first batch, stop it `batches` later or with the epoch."""
        self.seen += 1
        if self.seen == 1:
            self.started = time.monotonic()
        elif not self.spoken and (self.seen > self.batches or batch_idx + 1 == trainer.num_training_batches):
            self.spoken = True
            if trainer.is_global_zero:
                self._speak(trainer, (time.monotonic() - self.started) / (self.seen - 1))

    def _speak(self, trainer: L.Trainer, step: float) -> None:
        per_face = step / trainer.datamodule.hparams["batch_size"] / trainer.world_size  # type: ignore[attr-defined]
        epoch = step * trainer.num_training_batches
        if trainer.val_dataloaders is not None:
            epoch += FORWARD_SHARE * per_face * len(trainer.val_dataloaders.rows)
        left = (trainer.max_epochs or 0) - trainer.current_epoch
        whole = f"{left} epochs at most {spoken(epoch * left)}"
        for timer in (callback for callback in trainer.callbacks if isinstance(callback, Timer)):  # type: ignore[attr-defined]
            remaining = timer.time_remaining("train")
            if remaining is not None and remaining < epoch * left:
                whole = f"training ends with the epoch under way in {spoken(remaining)}"
        print(
            f"{1 / per_face:,.0f} faces/s: an epoch takes about {spoken(epoch)}, {whole}.\n"
            f"Ctrl-C stops with a checkpoint; python -m emotion.train resume={self.run_dir} goes on from it.",
            flush=True,
        )


def spoken(seconds: float) -> str:
    """A duration as a person says it: 40 seconds, 12 minutes, 3.5 hours."""
    for unit, length, until in (("seconds", 1, 100), ("minutes", 60, 90), ("hours", 3600, 48)):
        if seconds < until * length:
            value = seconds / length
            return f"{value:.1f} {unit}" if value < 10 and unit != "seconds" else f"{max(1, value):.0f} {unit}"
    return f"{seconds / 86400:.1f} days"
