"""EmotionClassifier: a network, its loss and its optimiser, described by plain config."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from emotion.config.instantiate import build
from emotion.data.transforms.preprocess import Preprocess
from emotion.data.transforms.tta import averaged, logits, logits_of_each
from emotion.errors import UserError
from emotion.metrics.classification import EpochScores
from emotion.optim.parameter_groups import parameter_groups

Config = Mapping[str, Any]
Batch = tuple[Tensor, Tensor]

NEVER = 2**62


class Teacher(Protocol):
    """What distillation adds to the loss; see `emotion.training.distillation`."""

    @property
    def classifiers(self) -> "Sequence[EmotionClassifier]":
        """The trained classifiers that teach."""
        ...

    def loss(self, label_loss: Tensor, logits: Tensor, faces: Tensor) -> Tensor:
        """The label loss () combined with the teacher's, for logits (B, K) and faces (B, C, S, S) from 0 to 1."""
        ...


class EmotionClassifier(L.LightningModule):
    """A network that trains, validates and tests, and that its checkpoint rebuilds without any other file.

    Args:
        model: the network; it is given num_classes, in_channels and input_size besides.
        input: what it takes: size, channels, mean, std (see `Preprocess`).
        classes: names in the order of the network's outputs.
        class_counts: training faces of each class, for the losses that weigh them.
        loss: given class_counts besides.
        optimizer: given the parameters besides.
        scheduler: given the optimizer, and total_steps where its `interval` is step; empty for a constant rate.
        monitor: the metric that a plateau schedule watches.
        backbone_lr: learning rate of all but the head, which has the optimizer's; None for the same.
        layer_decay: of the learning rate from each block to the one before it; see `parameter_groups`.
        temperature: divides the logits of all probabilities; fitted after training, see `emotion.metrics.calibration`.
    """

    def __init__(
        self,
        model: Config,
        input: Config,
        classes: Sequence[str],
        class_counts: Sequence[float],
        loss: Config,
        optimizer: Config,
        scheduler: Config,
        monitor: str = "val/acc",
        backbone_lr: float | None = None,
        layer_decay: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.classes, self.temperature = tuple(classes), temperature
        self.preprocess = Preprocess(**input)
        self.net = build(model, num_classes=len(classes), in_channels=input["channels"], input_size=input["size"])
        self.criterion = build(loss, class_counts=class_counts)
        self.train_scores, self.val_scores, self.test_scores = (EpochScores(len(classes)) for _ in range(3))
        self.memory_format = torch.contiguous_format
        self.teacher: Teacher | None = None
        self.sharded = False

    def configure_model(self) -> None:
        """Under a strategy that shards: lay the network out over its processes; under any other leave it whole."""
        if self.device_mesh is not None and not self.sharded:
            from emotion.runtime.distributed import shard

            shard(self.net, self.device_mesh)
            self.sharded = True

    def tune(self, *, channels_last: bool, compile_mode: str | None = None) -> None:
        """Fit the network to the machine, compiled if a mode of torch.compile is given.

        Neither changes what a checkpoint holds.
        """
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.net.to(memory_format=self.memory_format)
        if compile_mode:
            self.net.compile(mode=compile_mode)

    def set_teacher(self, teacher: Teacher) -> None:
        """Learn from `teacher` besides the labels from now on; no checkpoint holds it."""
        self.teacher = teacher

    def forward(self, faces: Tensor) -> Tensor:
        """Normalised faces (B, C, S, S) to logits (B, K)."""
        called = self.training or self.sharded  # what is sharded is gathered by hooks of the call
        run = self.net if called else self.net.forward  # compiling for evaluation gains nothing
        logits: Tensor = run(faces.contiguous(memory_format=self.memory_format))
        return logits

    def calibrated(self, faces: Tensor) -> Tensor:
        """Normalised faces (B, C, S, S) to probabilities (B, K), through the temperature."""
        return averaged(logits(self, faces, "none"), self.temperature)

    def logits(self, pixels: Tensor, tta: str = "none") -> Tensor:
        """Raw uint8 faces (B, H, W) or (B, H, W, 3) to logits (V, B, K) of each view, whatever the temperature."""
        return self.logits_of_each(pixels, [tta])[tta]

    @torch.inference_mode()
    def logits_of_each(self, pixels: Tensor, tta: Sequence[str]) -> dict[str, Tensor]:
        """`logits` by the name of their views, each view asked once."""
        return logits_of_each(self, self.preprocess(pixels), tta)

    def probabilities(self, pixels: Tensor, tta: str = "none") -> Tensor:
        """Raw uint8 faces (B, H, W) or (B, H, W, 3) to probabilities (B, K), averaged over the test-time views."""
        return averaged(self.logits(pixels, tta), self.temperature)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss of a batch of faces and targets."""
        return self._step(batch, self.train_scores)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds to the epoch's scores."""
        self._step(batch, self.val_scores)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds to the epoch's scores."""
        self._step(batch, self.test_scores)

    def _step(self, batch: Batch, scores: EpochScores) -> Tensor:
        faces, targets = batch
        logits = self(faces)
        loss: Tensor = self.criterion(logits, targets)
        if self.teacher and self.training:
            loss = self.teacher.loss(loss, logits, self.preprocess.undo(faces))
        scores.update(loss, logits.detach(), targets)
        return loss

    def on_train_epoch_start(self) -> None:
        """A new epoch adds up from nothing."""
        self.train_scores.reset()

    def on_validation_epoch_start(self) -> None:
        """A new pass adds up from nothing, and judges one network: DDP shares statistics, sharding does not."""
        self.val_scores.reset()
        if self.sharded:
            from emotion.runtime.distributed import share_statistics

            share_statistics(self.net)

    def on_test_epoch_start(self) -> None:
        """A new pass adds up from nothing."""
        self.test_scores.reset()

    def on_train_epoch_end(self) -> None:
        """Log the epoch, then step a plateau schedule: now, so that the epoch's checkpoint holds its new state."""
        self._log_epoch("train", self.train_scores)
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau):
                config.scheduler.step(self._monitored())

    def _monitored(self) -> Tensor:
        name, logged = self.hparams["monitor"], self.trainer.callback_metrics
        if name not in logged:
            raise UserError(f"monitor.metric={name} is not logged; expected one of {', '.join(sorted(logged))}.")
        return logged[name]

    def on_validation_epoch_end(self) -> None:
        """Log the pass."""
        self._log_epoch("val", self.val_scores)

    def on_test_epoch_end(self) -> None:
        """Log the pass."""
        self._log_epoch("test", self.test_scores)

    def _log_epoch(self, stage: str, scores: EpochScores) -> None:
        self.log_dict({f"{stage}/{name}": value for name, value in scores.compute().items()})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser over all parameters; Lightning steps its schedule but for a plateau's (see above)."""
        settings, rates = self.hparams["optimizer"], (self.hparams["backbone_lr"], self.hparams["layer_decay"])
        optimizer: Optimizer = build(settings, parameter_groups(self.net, settings["lr"], *rates))
        if not self.hparams["scheduler"]:
            return optimizer
        settings = dict(self.hparams["scheduler"])
        interval = settings.pop("interval")
        told = {"total_steps": self._total_steps()} if interval == "step" else {}
        scheduler = build(settings, optimizer, **told)
        by_lightning = NEVER if isinstance(scheduler, ReduceLROnPlateau) else 1
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": scheduler,
                "interval": interval,
                "frequency": by_lightning,
                "monitor": self.hparams["monitor"],
            },
        }

    def _total_steps(self) -> int:
        """Optimiser steps of the whole run.

        Lightning's `estimated_stepping_batches` sets the loader up before a checkpoint is read, which then cannot tell
        it where in the epoch to go on.
        """
        trainer = self.trainer
        assert trainer.datamodule is not None, "a schedule by step needs trainer.fit(classifier, datamodule=...)"  # type: ignore[attr-defined]
        batches, limit = len(trainer.datamodule.train_dataloader()), trainer.limit_train_batches  # type: ignore[attr-defined]
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        return math.ceil(batches / trainer.accumulate_grad_batches) * (trainer.max_epochs or 1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the sums of the epoch under way, so that a run stopped in its middle reports the whole of it."""
        sums = self.train_scores.sums()
        checkpoint["train_sums"] = {name: self.trainer.strategy.reduce(s, reduce_op="sum") for name, s in sums.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the sums of the epoch under way, which are all processes' and go on in the first."""
        if self._trainer is None or self.trainer.is_global_zero:
            self.train_scores.restore(checkpoint["train_sums"])
