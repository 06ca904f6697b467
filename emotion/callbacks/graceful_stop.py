"""A signal ends a run cleanly: the batch is finished, a checkpoint written to resume from; a cluster runs it again."""

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
from emotion.runtime.distributed import is_first
from emotion.runtime.signals import Ending

LISTENED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
OF_A_CLUSTER = (signal.SIGUSR1, signal.SIGUSR2)
"""Sent some time before a job is ended: to save what there is, and be put in the queue again."""


class GracefulStop(L.Callback):
    """Raises `Stopped` after the batch during which the signal came; a second signal does what it always did.

    The checkpoint resumes exactly there; in validation, where nothing is learnt, at validation's first batch. SIGUSR1
    and SIGUSR2 go on to whoever listened for them before: submitit, or `requeue_on` of a job of Slurm's.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = Path(checkpoint)
        self.received: int | None = None
        self.former: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen from here on; Lightning has set its own handlers by now, and on SIGTERM would exit with status 0."""
        for signum in LISTENED:
            self.former[signum] = signal.signal(signum, self._receive)
        came = [former.came for former in self.former.values() if isinstance(former, Ending) and former.came]
        if came:  # and was lost
            self._receive(came[0], None)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self.former.items():
            signal.signal(signum, handler)
        self.former = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        """Stop here, unless gradients are still adding up or it was the epoch's last batch: one to come will do it."""
        if batch_idx + 1 < trainer.num_training_batches and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._stop_if_asked(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """In a validation that is done again: have Lightning count its batches from nothing."""
        loop = trainer.fit_loop.epoch_loop.val_loop
        if loop.restarted_mid_evaluation:
            loop.batch_progress.total.reset()

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object) -> None:
        """Stop here; what was validated so far is done again."""
        if not trainer.sanity_checking:
            self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: L.Trainer) -> None:
        received = self.received or 0
        if trainer.world_size > 1:  # a signal may reach one process alone
            shared = torch.tensor(received, device=trainer.strategy.root_device)
            received = int(trainer.strategy.reduce(shared, reduce_op="max"))
        if received:
            self._restore()
            trainer.save_checkpoint(self.checkpoint)
            if received in OF_A_CLUSTER and callable(signal.getsignal(received)):
                os.kill(os.getpid(), received)
            raise Stopped(received, self.checkpoint)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """In validation: have Lightning's counters say that its first batch is about to be taken."""
        if trainer.validating:
            first = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress = {"total": dict(first), "current": dict(first), "is_last_batch": False}
            checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"] = progress

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the signals back, and one that came too late for this callback to whoever takes it now."""
        self._restore()
        if self.received is not None:
            os.kill(os.getpid(), self.received)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._restore()


def requeue_on(signum: int) -> None:
    """In a job of Slurm's to which nobody else listens: at this signal have it run again from the start, and end.

    That is where `resume=auto` looks for the checkpoint. One process asks for it.
    """
    if "SLURM_JOB_ID" in os.environ and signal.getsignal(signum) is signal.SIG_DFL:
        signal.signal(signum, _requeue)


def _requeue(signum: int, frame: FrameType | None) -> None:
    job, array = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if not is_first():
        sys.exit(0)  # another status might end the first before it has asked
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        said = done.stderr.strip() or "put in the queue again"
    except FileNotFoundError:
        said = "scontrol is not there to put it in the queue again"
    print(f"Slurm job {job}: {said}", flush=True)
    sys.exit(128 + signum)
