"""A signal ends a run cleanly: the batch is finished, a checkpoint written to resume from; a cluster runs it again."""

import os
import signal
import subprocess
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.utilities.types import STEP_OUTPUT


class Stopped(Exception):
    """A signal ended the run, which left a checkpoint behind."""

    def __init__(self, signum: int, checkpoint: Path) -> None:
        super().__init__(f"{signal.Signals(signum).name}: stopped, everything so far is in {checkpoint}.")
        self.signum = signum


LISTENED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
OF_A_CLUSTER = (signal.SIGUSR1, signal.SIGUSR2)
"""Sent some time before a job is ended: to save what there is, and be put in the queue again."""


class GracefulStop(L.Callback):
    """Raises `Stopped` after the batch during which the signal came; a second signal does what it always did.

    The checkpoint resumes exactly there; in validation, where nothing is learnt, at validation's first batch. SIGUSR1
    and SIGUSR2 go on to whoever listened for them before, such as submitit; where nobody did, and Slurm runs the job,
    it is put in the queue again.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = Path(checkpoint)
        self.received: int | None = None
        self.former: dict[int, Any] = {}
        self.before: Any = None  # who listened for the signal that came

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen from here on; Lightning has set its own handlers by now, and on SIGTERM would exit with status 0."""
        for signum in LISTENED:
            self.former[signum] = signal.signal(signum, self._receive)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.received, self.before = signum, self.former[signum]
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
        asked = self.received is not None
        if trainer.world_size > 1:  # a signal may reach one process alone
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked:
            trainer.save_checkpoint(self.checkpoint)
            if self.received in OF_A_CLUSTER and callable(self.before):
                os.kill(os.getpid(), self.received)
            elif self.received in OF_A_CLUSTER and trainer.is_global_zero:
                requeue()
            raise Stopped(self.received or signal.SIGTERM, self.checkpoint)

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


def requeue() -> None:
    """Have Slurm run this job again from the start, which is where `resume=auto` looks for the checkpoint."""
    job, array = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if not job:
        return
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    print(f"Slurm job {job}: {done.stderr.strip() or 'put in the queue again'}", flush=True)
