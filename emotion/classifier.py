"""EmotionClassifier: a network, its loss and its optimizer, described by plain config."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from emotion.config.compose import as_yaml
from emotion.config.instantiate import instantiate
from emotion.data.dataloader import limit_batches
from emotion.data.transforms.preprocess import Preprocess, to_float
from emotion.data.transforms.tta import mean_probabilities, tta_logits
from emotion.errors import UserError
from emotion.metrics.classification import EpochScores
from emotion.models.blocks import check_network
from emotion.optim.parameter_groups import parameter_groups

Config = Mapping[str, Any]
Batch = tuple[Tensor, Tensor]

MAX_FREQUENCY = 2**62
"""Frequency of a scheduler that Lightning never steps."""


class Teacher(Protocol):
    """The distillation part of the loss; see `emotion.training.distillation`."""

    @property
    def classifiers(self) -> "Sequence[EmotionClassifier]":
        """The trained classifiers of the teacher."""
        ...

    def loss(self, label_loss: Tensor, logits: Tensor, faces: Tensor, student: Preprocess) -> Tensor:
        """Combine the label loss () with the teacher's, for the student's logits (B, K) and input (B, C, S, S)."""
        ...


class EmotionClassifier(L.LightningModule):
    """A network with its loss and optimizer, which its checkpoint restores without any other file.

    Args:
        model: Config of the network; it also receives num_classes, in_channels and input_size.
        input: size, channels, mean and std of the network's input (see `Preprocess`).
        classes: Class names in the order of the logits.
        class_counts: Training faces of each class, for losses with class weights.
        loss: Config of the loss, which also receives class_counts; None for plain cross-entropy.
        optimizer: Config of the optimizer; it also receives the parameters.
        scheduler: Config of the learning-rate schedule, which also receives the optimizer, and total_steps if its
            `interval` is step; empty for a constant learning rate.
        monitor: Metric watched by a plateau schedule.
        backbone_lr: Learning rate of everything but the head; None for the optimizer's.
        layer_decay: Factor of the learning rate from each block to the one before it; see `parameter_groups`.
        temperature: Divisor of the logits in all probabilities, fitted after training; see
            `emotion.metrics.calibration`.
    """

    def __init__(
        self,
        model: Config,
        input: Config,
        classes: Sequence[str],
        class_counts: Sequence[float],
        loss: Config | None,
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
        self.net = instantiate(model, num_classes=len(classes), in_channels=input["channels"], input_size=input["size"])
        check_network(self.net, model["_target_"])
        self.criterion = instantiate(loss, class_counts=class_counts) if loss else nn.CrossEntropyLoss()
        self.train_scores, self.val_scores, self.test_scores = (EpochScores(len(classes)) for _ in range(3))
        self.memory_format = torch.contiguous_format
        self.teacher: Teacher | None = None  # changes the loss; checkpoints do not contain it
        self.sharded = False
        self._step_rates: list[float] = []
        self.unchecked_losses: list[tuple[int, Tensor]] = []  # batch and loss; infinite if any process's is not finite

    @property
    def step_rates(self) -> list[float]:
        """Learning rates of the latest optimizer step, one per parameter group; before the first, those that it takes.

        The optimizer already holds those of the next step, because the schedule is stepped right after each.
        """
        return self._step_rates or self._current_rates()

    def _current_rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.trainer.optimizers[0].param_groups]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the network's input."""
        return self.preprocess.channels, self.preprocess.size, self.preprocess.size

    def configure_model(self) -> None:
        """Shard the network under a strategy with a device mesh; leave it whole under any other."""
        if self.device_mesh is not None and not self.sharded:
            from emotion.runtime.distributed import shard

            shard(self.net, self.device_mesh)
            self.sharded = True

    def optimize_for_device(self, *, channels_last: bool, compile_mode: str | None = None) -> None:
        """Set the memory format, and compile the network if `compile_mode` (a mode of torch.compile) is given.

        Neither changes the contents of a checkpoint.
        """
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.net.to(memory_format=self.memory_format)
        if compile_mode:
            self.net.compile(mode=compile_mode)

    def forward(self, faces: Tensor) -> Tensor:
        """Map normalized faces (B, C, S, S) to logits (B, K)."""
        use_hooks = self.training or self.sharded  # hooks gather the weights of a sharded network
        net = self.net if use_hooks else self.net.forward  # evaluation gains nothing from compilation
        logits: Tensor = net(faces.contiguous(memory_format=self.memory_format))
        return logits

    @property
    def network_name(self) -> str:
        """Name of the network's timm backbone or class."""
        return getattr(self.net, "name", type(self.net).__name__)

    def calibrated_probabilities(self, faces: Tensor) -> Tensor:
        """Map normalized faces (B, C, S, S) to probabilities (B, K), with the temperature and without TTA."""
        return mean_probabilities(self(faces).float()[None], self.temperature)

    @torch.inference_mode()
    def logits(self, pixels: Tensor, tta: Sequence[str] = ("none",)) -> dict[str, Tensor]:
        """Map raw uint8 faces (B, H, W) or (B, H, W, 3) to logits (V, B, K) of the V views, without the temperature.

        The keys are the names in `tta`. The unchanged face is evaluated once for all of them.
        """
        faces = self.preprocess.shrink(to_float(pixels))
        return tta_logits(self, self.preprocess.prepare, faces, tta)

    def probabilities(self, pixels: Tensor, tta: str = "none") -> Tensor:
        """Map raw uint8 faces (B, H, W) or (B, H, W, 3) to probabilities (B, K), the mean over the views."""
        return mean_probabilities(self.logits(pixels, [tta])[tta], self.temperature)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of a batch.

        Raises:
            UserError: The loss of this batch, or on an accelerator of the one before, is NaN or infinite.
        """
        loss = self._step(batch, self.train_scores)
        if self._trainer is not None:
            self._check_losses(loss.detach(), batch_idx)
        return loss

    def _check_losses(self, loss: Tensor, batch_idx: int) -> None:
        """Check the loss of all processes; on an accelerator one batch later, so that it need not wait for the loss."""
        if self.trainer.world_size > 1:  # all processes stop together
            bad = self.trainer.strategy.reduce((~loss.isfinite()).float(), reduce_op="max")
            loss = torch.where(bad > 0, float("inf"), loss)
        self.unchecked_losses.append((batch_idx, loss))
        is_last = batch_idx + 1 == self.trainer.num_training_batches
        while len(self.unchecked_losses) > (0 if is_last or loss.device.type == "cpu" else 1):
            index, value = self.unchecked_losses.pop(0)
            if not value.isfinite():
                self._refuse(f"batch {index + 1}", "training", value)

    def _refuse(self, moment: str, kind: str, loss: Tensor) -> NoReturn:
        """Raise UserError for a loss that is not finite."""
        rate, precision = self.trainer.optimizers[0].param_groups[-1]["lr"], self.trainer.precision
        advice = "" if str(precision).startswith("32") else ", or trainer.precision=32-true"
        raise UserError(
            f"epoch {self.current_epoch + 1}, {moment}: the {kind} loss is {float(loss)}; the learning rate is "
            f"{rate:g}. Lower optimizer.lr, or limit the gradients by trainer.gradient_clip_val=1{advice}. Start a new "
            f"run; this one keeps the best of its earlier epochs, if any."
        )

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Keep the learning rates of the step."""
        self._step_rates = self._current_rates()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the validation scores."""
        self._step(batch, self.val_scores)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the test scores."""
        self._step(batch, self.test_scores)

    def _step(self, batch: Batch, scores: EpochScores) -> Tensor:
        faces, targets = batch
        logits = self(faces)
        loss: Tensor = self.criterion(logits, targets)
        if self.teacher and self.training:
            loss = self.teacher.loss(loss, logits, faces, self.preprocess)
        scores.update(loss, logits.detach(), targets)
        return loss

    def on_train_epoch_start(self) -> None:
        """Reset the scores."""
        self.train_scores.reset()
        self.unchecked_losses.clear()

    def on_validation_epoch_start(self) -> None:
        """Reset the scores, and share batch statistics between the processes of a sharded network, as DDP does."""
        self.val_scores.reset()
        if self.sharded:
            from emotion.runtime.distributed import broadcast_buffers

            broadcast_buffers(self.net)

    def on_test_epoch_start(self) -> None:
        """Reset the scores."""
        self.test_scores.reset()

    def on_train_epoch_end(self) -> None:
        """Log the scores, then step a plateau schedule: before the epoch's checkpoint, which saves its new state."""
        self._log_scores("train", self.train_scores)
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau):
                config.scheduler.step(self._monitored())

    def _monitored(self) -> Tensor:
        name, logged = self.hparams["monitor"], self.trainer.callback_metrics
        if name not in logged:
            raise UserError(f"monitor.metric={name} is not logged; expected one of {', '.join(sorted(logged))}.")
        return logged[name]

    def on_validation_epoch_end(self) -> None:
        """Log the scores, unless the loss of an epoch of training is NaN or infinite: then raise UserError."""
        loss = self.val_scores.compute()["loss"]
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking and not loss.isfinite():
            self._refuse("validation", "validation", loss)
        self._log_scores("val", self.val_scores)

    def on_test_epoch_end(self) -> None:
        """Log the scores."""
        self._log_scores("test", self.test_scores)

    def _log_scores(self, stage: str, scores: EpochScores) -> None:
        self.log_dict({f"{stage}/{name}": value for name, value in scores.compute().items()})

    def make_optimizer(self) -> Optimizer:
        """Build the optimizer; raises UserError if it refuses its settings."""
        settings, rates = self.hparams["optimizer"], (self.hparams["backbone_lr"], self.hparams["layer_decay"])
        if settings.get("lr") is None:
            raise UserError("optimizer.lr is not set; expected a learning rate, such as optimizer.lr=1e-3.")
        optimizer: Optimizer = instantiate(settings, parameter_groups(self.net, settings["lr"], *rates))
        return optimizer

    def make_scheduler(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Build the learning-rate schedule of a run of `total_steps` optimizer steps; raises UserError as above."""
        settings = dict(self.hparams["scheduler"])
        if (interval := settings.pop("interval", None)) not in ("epoch", "step"):
            raise UserError(f"scheduler.interval={as_yaml(interval)}: expected epoch or step.")
        steps = {"total_steps": total_steps} if interval == "step" else {}
        scheduler: LRScheduler = instantiate(settings, optimizer, **steps)
        return scheduler

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and its schedule; `on_train_epoch_end` steps a plateau schedule, Lightning any other."""
        optimizer = self.make_optimizer()
        if not self.hparams["scheduler"]:
            return optimizer
        interval = self.hparams["scheduler"]["interval"]
        scheduler = self.make_scheduler(optimizer, self._total_steps() if interval == "step" else 0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": scheduler,
                "interval": interval,
                "frequency": MAX_FREQUENCY if isinstance(scheduler, ReduceLROnPlateau) else 1,
                "monitor": self.hparams["monitor"],
            },
        }

    def _total_steps(self) -> int:
        """Return the optimizer steps of the whole run.

        Lightning's `estimated_stepping_batches` creates the data loader before a checkpoint is loaded, which then
        cannot restore the loader's position in the epoch.
        """
        trainer = self.trainer
        assert trainer.datamodule is not None, "a schedule by step needs trainer.fit(classifier, datamodule=...)"  # type: ignore[attr-defined]
        batches = limit_batches(len(trainer.datamodule.train_dataloader()), trainer.limit_train_batches)  # type: ignore[attr-defined]
        steps = math.ceil(batches / trainer.accumulate_grad_batches) * (trainer.max_epochs or 1)
        return min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the running sums of the epoch, summed over processes, so that a resumed epoch is scored as a whole.

        The learning rates of the latest step are saved as well.
        """
        checkpoint["step_rates"] = self._step_rates
        sums = self.train_scores.sums()
        checkpoint["train_sums"] = {name: self.trainer.strategy.reduce(s, reduce_op="sum") for name, s in sums.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the running sums, in the first process only because they are totals, and the learning rates."""
        self._step_rates = checkpoint.get("step_rates", [])
        if self._trainer is None or self.trainer.is_global_zero:
            self.train_scores.restore(checkpoint["train_sums"])
