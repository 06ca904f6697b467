"""One line an epoch, readable in a terminal and in a log file alike."""

import time

import lightning as L

from emotion.classifier import EmotionClassifier
from emotion.cli import duration

COLUMNS = {"Epoch": 9, "Train loss": 10, "acc %": 6, "Val loss": 8, "Val acc %": 9, "F1 %": 6, "LR": 8, "Time": 6}
STATUS_WIDTH = 4


class EpochTable(L.Callback):
    """Prints losses, accuracies, macro F1, learning rate and seconds of each epoch; marks the best so far."""

    def __init__(self, metric: str, mode: str) -> None:
        self.metric, self.sign = metric, 1 if mode == "max" else -1
        self.best: float | None = None
        self.started = 0.0

    def state_dict(self) -> dict[str, float | None]:
        """The best score so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float | None]) -> None:
        """Go on with the best score so far."""
        self.best = state_dict["best"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the head; an epoch resumed in its middle is timed from here."""
        self.started = time.monotonic()
        if trainer.is_global_zero:
            print("  ".join(f"{name:>{width}}" for name, width in COLUMNS.items()), flush=True)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the row of the epoch."""
        assert isinstance(pl_module, EmotionClassifier)
        now = {name: float(value) for name, value in trainer.callback_metrics.items()}
        now |= {f"train/{name}": float(value) for name, value in pl_module.train_scores.compute().items()}
        score = now.get(self.metric)
        better = score is not None and (self.best is None or self.sign * score > self.sign * self.best)
        self.best = score if better else self.best
        unknown = float("nan")  # without validation
        cells = (
            f"{trainer.current_epoch + 1}/{trainer.max_epochs}",
            f"{now['train/loss']:.4f}",
            f"{100 * now['train/acc']:.2f}",
            f"{now.get('val/loss', unknown):.4f}",
            f"{100 * now.get('val/acc', unknown):.2f}",
            f"{100 * now.get('val/macro_f1', unknown):.2f}",
            f"{trainer.optimizers[0].param_groups[0]['lr']:.2e}",
            duration(time.monotonic() - self.started),
            "best" if better else "",
        )
        if trainer.is_global_zero:
            widths = [*COLUMNS.values(), STATUS_WIDTH]
            row = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
            print(row.rstrip(), flush=True)
