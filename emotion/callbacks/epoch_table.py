"""Progress as plain text for terminals and log files: a line per epoch, and an estimate of the training time."""

import shlex
import time
from typing import Any

import lightning as L
from lightning.pytorch.utilities.types import STEP_OUTPUT

from emotion.callbacks.staged_unfreezing import StagedUnfreezing
from emotion.classifier import EmotionClassifier
from emotion.config.instantiate import plugins_argument
from emotion.data.dataloader import num_evaluated
from emotion.errors import counted
from emotion.models.fast_cnn import FastCNN
from emotion.reporting.text import format_duration, wrapped

COLUMN_WIDTHS = {
    "epoch": 7, "phase": 5, "loss": 6, "acc %": 5, "val loss": 8, "val acc %": 9, "val F1 %": 8, "lr": 7,
    "lr backbone/head": 16, "time": 6, "": 4,
}  # fmt: skip
"""At most 80 characters with a space between columns and phases of up to 7 characters, see `WIDTH`."""
WIDTH = 80
FORWARD_SHARE = 0.3
"""Time of a validation step as a share of a training step's."""
LONG = 3600


class EpochTable(L.Callback):
    """Print losses, accuracies, macro F1, learning rates and time of each epoch, and mark the best epoch so far.

    Staged training adds the phase, separate learning rates for backbone and head a second rate; "-" if frozen. The best
    epoch has the largest `metric` with `mode` max, the smallest with min.
    """

    def __init__(self, metric: str, mode: str) -> None:
        self.metric, self.sign = metric, 1 if mode == "max" else -1
        self.best: float | None = None
        self.seconds: list[float] = []  # of each epoch; of a resumed one only since it was resumed
        self.started = 0.0
        self.columns: dict[str, int] = {}
        self.is_headed = False
        self.stages: StagedUnfreezing | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the best score and the epochs' times so far."""
        return {"best": self.best, "seconds": list(self.seconds)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.best, self.seconds = state_dict["best"], list(state_dict.get("seconds", ()))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose the columns, and start the clock of an epoch that is resumed in its middle."""
        self.started = time.monotonic()
        self.stages = StagedUnfreezing.of(trainer)
        hidden = {"lr" if len(trainer.optimizers[0].param_groups) > 1 else "lr backbone/head"}
        hidden |= {"acc %"} if self.stages else {"phase"}
        self.columns = {name: width for name, width in COLUMN_WIDTHS.items() if name not in hidden}
        if self.stages:
            self.columns["phase"] = max(len(name) for name in ("phase", *self.stages.stages))
        self.is_headed = False

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the row of the epoch, the first one below the header."""
        assert isinstance(pl_module, EmotionClassifier)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics |= {f"train/{name}": float(value) for name, value in pl_module.train_scores.compute().items()}
        score = metrics.get(self.metric)
        is_best = score is not None and (self.best is None or self.sign * score > self.sign * self.best)
        self.best = score if is_best else self.best
        self.seconds.append(round(time.monotonic() - self.started, 2))
        nan = float("nan")  # without validation
        groups = trainer.optimizers[0].param_groups  # the head's is the last
        rates = [
            f"{rate:.1e}" if any(parameter.requires_grad for parameter in group["params"]) else "-"
            for group, rate in zip(groups, pl_module.step_rates, strict=True)
        ]
        cells = {
            "epoch": f"{trainer.current_epoch + 1}/{trainer.max_epochs}",
            "phase": self.stages.phase(trainer.current_epoch) if self.stages else "",
            "loss": f"{metrics['train/loss']:.4f}",
            "acc %": f"{100 * metrics['train/acc']:.2f}",
            "val loss": f"{metrics.get('val/loss', nan):.4f}",
            "val acc %": f"{100 * metrics.get('val/acc', nan):.2f}",
            "val F1 %": f"{100 * metrics.get('val/macro_f1', nan):.2f}",
            "lr": rates[-1],
            "lr backbone/head": "/".join(rates[-2:]),
            "time": format_duration(self.seconds[-1]),
            "": "best" if is_best else "",
        }
        if not self.is_headed:
            self.is_headed = True
            self._print(trainer, {name: name for name in self.columns})
        self._print(trainer, cells)

    def _print(self, trainer: L.Trainer, cells: dict[str, str]) -> None:
        if trainer.is_global_zero:
            separator = "  " if sum(self.columns.values()) + 2 * len(self.columns) <= WIDTH else " "
            row = separator.join(f"{cells[name]:>{width}}" for name, width in self.columns.items())
            print(row.rstrip(), flush=True)


class TimeEstimate(L.Callback):
    """Time the first `batches` training batches after one warm-up batch, and print how long training takes.

    Staged training is timed stage by stage: with frozen blocks a batch takes less time.
    """

    def __init__(self, run_dir: str, batches: int = 4) -> None:
        self.run_dir, self.batches = run_dir, batches
        self.stages: StagedUnfreezing | None = None
        self.phase = ""
        self.seen = 0
        self.started = 0.0
        self.is_printed = self.is_hinted = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the stages."""
        self.stages = StagedUnfreezing.of(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        """Start the clock after a stage's first batch, stop it `batches` later or at the end of the epoch."""
        phase = self.stages.phase(trainer.current_epoch) if self.stages else ""
        if phase != self.phase:
            self.phase, self.seen, self.is_printed = phase, 0, False
        self.seen += 1
        if self.seen == 1:
            self.started = time.monotonic()
        elif not self.is_printed and (self.seen > self.batches or batch_idx + 1 == trainer.num_training_batches):
            self.is_printed = True
            if trainer.is_global_zero:
                self._print(trainer, (time.monotonic() - self.started) / (self.seen - 1))

    def _print(self, trainer: L.Trainer, step_seconds: float) -> None:
        batch_size = trainer.datamodule.hparams["batch_size"]  # type: ignore[attr-defined]
        face_seconds = step_seconds / batch_size / trainer.world_size
        epoch_seconds = step_seconds * trainer.num_training_batches
        if trainer.val_dataloaders is not None:
            rows, limit = len(trainer.val_dataloaders.rows), trainer.limit_val_batches
            epoch_seconds += FORWARD_SHARE * face_seconds * num_evaluated(rows, batch_size, trainer.world_size, limit)
        end = run_end = trainer.max_epochs or 0
        if self.stages:
            end = min(run_end, self.stages.end(trainer.current_epoch))
        epochs = end - trainer.current_epoch
        seconds = epoch_seconds * epochs
        of_stage = f" of {self.phase}" * (end < run_end)
        total = f"{counted(epochs, 'epoch')}{of_stage} take{'s' * (epochs == 1)} at most {format_duration(seconds)}."
        is_slow = seconds > LONG and trainer.strategy.root_device.type == "cpu"
        if is_slow and not isinstance(trainer.lightning_module.net, FastCNN):
            total += " On a CPU, model=fast_cnn trains in minutes."
        epoch = f"an epoch takes about {format_duration(epoch_seconds)}"
        print(wrapped(f"{1 / face_seconds:,.0f} faces/s: {epoch}, {total}"), flush=True)
        if not self.is_hinted:
            self.is_hinted = True
            command = f"python -m emotion.train {plugins_argument()}{shlex.quote(f'resume={self.run_dir}')}"
            print(f"Ctrl-C stops with a checkpoint; resume with:\n  {command}", flush=True)
