"""Exponential moving average (EMA) of the weights for validation, test and checkpoints."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from emotion.classifier import EmotionClassifier
from emotion.errors import UserError


class ExponentialMovingAverage(L.Callback):
    """After every optimizer step, average = decay * average + (1 - decay) * weights, batch statistics included.

    The average replaces the weights of the network from the last training batch of an epoch to the next training batch.
    Lightning's own callback restores the raw weights before the best checkpoint is saved, swaps the two in a checkpoint
    saved during validation, and lets frozen weights drift by rounding.

    Raises:
        UserError: The decay is not from 0 to 1.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not isinstance(decay, int | float) or not 0 <= decay <= 1:
            raise UserError(f"ema_decay={decay}: expected a number from 0 to 1.")
        self.decay = decay
        self.last_step = 0  # the last step in the average
        self.stored: list[Tensor] = []  # the average, or the raw weights while the average replaces them
        self.in_place = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start from the initial weights, unless a checkpoint had an average."""
        tensors = _tensors(pl_module)
        stored = self.stored or tensors
        self.stored = [
            value.detach().to(tensor.device, copy=True) for value, tensor in zip(stored, tensors, strict=True)
        ]

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Restore the raw weights."""
        self._swap(pl_module, average=False)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        """Update the average if an optimizer step was taken."""
        self._update(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate the average."""
        self._swap(pl_module, average=bool(self.stored))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Use the average in the epoch's checkpoints even without validation."""
        self._swap(pl_module, average=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the average in the network."""
        self._swap(pl_module, average=True)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as the network's state, and the raw weights separately."""
        if not self.in_place:
            self._update(trainer, pl_module)
        names, current = list(_named(pl_module)), [tensor.detach().clone() for tensor in _tensors(pl_module)]
        stored = [tensor.clone() for tensor in self.stored]
        average, raw = (current, stored) if self.in_place else (stored, current)
        checkpoint["state_dict"] |= dict(zip(names, average, strict=True))
        checkpoint["raw_weights"] = dict(zip(names, raw, strict=True))

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore both; without an average in the checkpoint, start one from its weights."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self.last_step = checkpoint["global_step"]
        self.stored = [tensor.detach().clone() for tensor in _tensors(pl_module)]
        if raw := checkpoint.get("raw_weights"):
            for name, tensor in _named(pl_module).items():
                tensor.data.copy_(raw[name])

    def raw_weights(self, pl_module: L.LightningModule) -> dict[str, Tensor]:
        """Return the weights in training, by their names in the network."""
        tensors = self.stored if self.in_place else _tensors(pl_module)
        names = (name.removeprefix("net.") for name in _named(pl_module))
        return dict(zip(names, tensors, strict=True))

    def _update(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == self.last_step:
            return
        self.last_step = trainer.global_step
        pairs = [(stored, tensor.detach()) for stored, tensor in zip(self.stored, _tensors(pl_module), strict=True)]
        averages, weights = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(averages, weights, 1 - self.decay)
        for stored, tensor in pairs:
            if not stored.is_floating_point():  # counters
                stored.copy_(tensor)

    def _swap(self, pl_module: L.LightningModule, *, average: bool) -> None:
        """Swap the network's tensors with the stored ones, if they are not the requested ones."""
        if average != self.in_place:
            for stored, tensor in zip(self.stored, _tensors(pl_module), strict=True):
                current = tensor.detach().clone()
                tensor.data.copy_(stored)
                stored.copy_(current)
            self.in_place = average


def _named(pl_module: L.LightningModule) -> dict[str, Tensor]:
    """Return the network's parameters and buffers by their names in a checkpoint."""
    assert isinstance(pl_module, EmotionClassifier)
    return {f"net.{name}": tensor for name, tensor in pl_module.net.state_dict(keep_vars=True).items()}


def _tensors(pl_module: L.LightningModule) -> list[Tensor]:
    return list(_named(pl_module).values())
