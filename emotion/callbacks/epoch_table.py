"""One line an epoch, readable in a terminal and in a log file alike."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from emotion.callbacks.staged_unfreezing import StagedUnfreezing
from emotion.classifier import EmotionClassifier
from emotion.reporting.text import duration

COLUMNS = {
    "Epoch": 9, "Phase": 5, "Train loss": 10, "acc %": 6, "Val loss": 8, "Val acc %": 9, "F1 %": 6, "LR": 8,
    "LR backbone/head": 17, "Time": 6, "Status": 6,
}  # fmt: skip


class EpochTable(L.Callback):
    """Prints losses, accuracies, macro F1, learning rates and seconds of each epoch; marks the best so far.

    With the phase where training is staged, and with two learning rates where the head has its own; a frozen part's is
    a dash.
    """

    def __init__(self, metric: str, mode: str) -> None:
        self.metric, self.sign = metric, 1 if mode == "max" else -1
        self.best: float | None = None
        self.seconds: list[float] = []  # of each epoch; one resumed in its middle counts from there
        self.started = 0.0
        self.columns: dict[str, int] = {}
        self.stages: StagedUnfreezing | None = None

    def state_dict(self) -> dict[str, Any]:
        """The best score and the epochs' times so far."""
        return {"best": self.best, "seconds": list(self.seconds)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with them."""
        self.best, self.seconds = state_dict["best"], list(state_dict.get("seconds", ()))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the head; an epoch resumed in its middle is timed from here."""
        self.started = time.monotonic()
        self.stages = next((c for c in trainer.callbacks if isinstance(c, StagedUnfreezing)), None)  # type: ignore[attr-defined]
        groups = len(trainer.optimizers[0].param_groups)
        left_out = {"LR" if groups > 1 else "LR backbone/head"} | (set() if self.stages else {"Phase"})
        self.columns = {name: width for name, width in COLUMNS.items() if name not in left_out}
        if self.stages:
            self.columns["Phase"] = max(len(name) for name in ("Phase", *self.stages.stages))
        self._print(trainer, {name: name for name in self.columns})

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
        self.seconds.append(round(time.monotonic() - self.started, 2))
        unknown = float("nan")  # without validation
        rates = self._rates(trainer)
        cells = {
            "Epoch": f"{trainer.current_epoch + 1}/{trainer.max_epochs}",
            "Phase": self.stages.phase(trainer.current_epoch) if self.stages else "",
            "Train loss": f"{now['train/loss']:.4f}",
            "acc %": f"{100 * now['train/acc']:.2f}",
            "Val loss": f"{now.get('val/loss', unknown):.4f}",
            "Val acc %": f"{100 * now.get('val/acc', unknown):.2f}",
            "F1 %": f"{100 * now.get('val/macro_f1', unknown):.2f}",
            "LR": rates[-1],
            "LR backbone/head": "/".join(rates[-2:]),
            "Time": duration(self.seconds[-1]),
            "Status": "best" if better else "",
        }
        self._print(trainer, cells)

    def _rates(self, trainer: L.Trainer) -> list[str]:
        """Of each parameter group, the head's last; a dash where all of it is frozen."""
        groups = trainer.optimizers[0].param_groups
        return [f"{g['lr']:.2e}" if any(p.requires_grad for p in g["params"]) else "-" for g in groups]

    def _print(self, trainer: L.Trainer, cells: dict[str, str]) -> None:
        if trainer.is_global_zero:
            row = "  ".join(f"{cells[name]:>{width}}" for name, width in self.columns.items())
            print(row.rstrip(), flush=True)


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
