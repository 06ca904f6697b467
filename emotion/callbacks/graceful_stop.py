"""Stop training cleanly at a signal: finish the batch, save a checkpoint to resume from; Slurm requeues the job."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT

from emotion.errors import Stopped
from emotion.runtime.distributed import is_rank_zero
from emotion.runtime.signals import SignalHandler

CLUSTER_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
"""Sent some time before a job ends, so that it saves its state and is requeued."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, *CLUSTER_SIGNALS)


class GracefulStop(L.Callback):
    """Raise `Stopped` after the batch during which a signal arrived; a second signal has its usual effect.

    The checkpoint resumes after that batch; if the signal arrived in validation, at the first validation batch.
    SIGUSR1 and SIGUSR2 are passed on to their previous handler: submitit's, or that of `requeue_on`.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = Path(checkpoint)
        self.received: int | None = None
        self.previous: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Install the handlers, after Lightning's, which would exit with status 0 on SIGTERM."""
        for signum in SIGNALS:
            self.previous[signum] = signal.signal(signum, self._receive)
        for handler in self.previous.values():
            if isinstance(handler, SignalHandler) and handler.signum:  # swallowed by a library before training
                self._receive(handler.signum, None)
                break

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for signum, handler in self.previous.items():
            signal.signal(signum, handler)
        self.previous = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        """Stop, but not between accumulated gradients, nor after the epoch's last batch, which validation follows."""
        if batch_idx + 1 < trainer.num_training_batches and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._stop_if_signalled(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset Lightning's batch counter when a validation is repeated after resuming."""
        loop = trainer.fit_loop.epoch_loop.val_loop
        if loop.restarted_mid_evaluation:
            loop.batch_progress.total.reset()

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object) -> None:
        """Stop; the resumed run repeats this validation."""
        if not trainer.sanity_checking:
            self._stop_if_signalled(trainer)

    def _stop_if_signalled(self, trainer: L.Trainer) -> None:
        received = self.received or 0
        if trainer.world_size > 1:  # a signal may reach only one process
            shared = torch.tensor(received, device=trainer.strategy.root_device)
            received = int(trainer.strategy.reduce(shared, reduce_op="max"))
        if received:
            self._restore_handlers()
            trainer.save_checkpoint(self.checkpoint)
            if received in CLUSTER_SIGNALS and callable(signal.getsignal(received)):
                os.kill(os.getpid(), received)
            raise Stopped(received, self.checkpoint)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """In validation, set Lightning's counters to just before its first batch."""
        if trainer.validating:
            first = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress = {"total": dict(first), "current": dict(first), "is_last_batch": False}
            checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"] = progress

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the handlers, and pass on a signal that arrived too late to stop training."""
        self._restore_handlers()
        if self.received is not None:
            os.kill(os.getpid(), self.received)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Restore the handlers."""
        self._restore_handlers()


def requeue_on(signum: int) -> None:
    """In a Slurm job, requeue the job and exit at this signal, unless the signal already has a handler.

    The requeued job runs the same command, and `resume=auto` finds the checkpoint.
    """
    if "SLURM_JOB_ID" in os.environ and signal.getsignal(signum) is signal.SIG_DFL:
        signal.signal(signum, _requeue)


def _requeue(signum: int, frame: FrameType | None) -> None:
    job, array = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if not is_rank_zero():
        sys.exit(0)  # any other status could end rank 0 before it requeues
    try:
        scontrol = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        message = scontrol.stderr.strip() or "requeued"
    except FileNotFoundError:
        message = "not requeued: scontrol was not found"
    print(f"Slurm job {job}: {message}", flush=True)
    sys.exit(128 + signum)
