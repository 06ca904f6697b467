"""The moving average of the weights, which validation, test and every checkpoint then take."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from emotion.classifier import EmotionClassifier
from emotion.errors import UserError


class ExponentialMovingAverage(L.Callback):
    """After every optimiser step, average = decay * average + (1 - decay) * weights, batch statistics included.

    The average stands in the network's place from the last training batch until the next one. Lightning's own callback
    gives the place back before the best checkpoint is saved, which then holds the raw weights unless it holds the
    optimiser's state too; saves the two exchanged where a run is stopped inside validation; and lets frozen weights
    drift by rounding.

    Raises:
        UserError: a decay that is none.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not isinstance(decay, int | float) or not 0 <= decay <= 1:
            raise UserError(f"ema_decay={decay}: expected a number from 0 to 1.")
        self.decay = decay
        self.step = 0  # the last one that was added
        self.stored: list[Tensor] = []  # the average, or the raw weights while the average stands in their place
        self.in_place = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the weights that the run begins with, unless a checkpoint brought an average."""
        tensors = _tensors(pl_module)
        stored = self.stored or tensors
        self.stored = [kept.detach().to(tensor.device, copy=True) for kept, tensor in zip(stored, tensors, strict=True)]

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Learn on with the raw weights."""
        self._put(pl_module, average=False)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        """Add the step, if one was taken."""
        self._add(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate the average."""
        self._put(pl_module, average=bool(self.stored))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the average, also where nothing is validated."""
        self._put(pl_module, average=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the average as the network."""
        self._put(pl_module, average=True)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """The average as the network's state, the raw weights beside it."""
        if not self.in_place:
            self._add(trainer, pl_module)
        names, now = list(_named(pl_module)), [tensor.detach().clone() for tensor in _tensors(pl_module)]
        stored = [tensor.clone() for tensor in self.stored]
        average, raw = (now, stored) if self.in_place else (stored, now)
        checkpoint["state_dict"] |= dict(zip(names, average, strict=True))
        checkpoint["raw_weights"] = dict(zip(names, raw, strict=True))

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with both; the checkpoint of a run that did not average begins with its weights."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self.step = checkpoint["global_step"]
        self.stored = [tensor.detach().clone() for tensor in _tensors(pl_module)]
        if raw := checkpoint.get("raw_weights"):
            for name, tensor in _named(pl_module).items():
                tensor.data.copy_(raw[name])

    def raw(self, pl_module: L.LightningModule) -> dict[str, Tensor]:
        """The weights that learn, by their names in the network."""
        tensors = self.stored if self.in_place else _tensors(pl_module)
        names = (name.removeprefix("net.") for name in _named(pl_module))
        return dict(zip(names, tensors, strict=True))

    def _add(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        pairs = [(kept, tensor.detach()) for kept, tensor in zip(self.stored, _tensors(pl_module), strict=True)]
        averages, weights = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(averages, weights, 1 - self.decay)
        for kept, tensor in pairs:
            if not kept.is_floating_point():  # counters
                kept.copy_(tensor)

    def _put(self, pl_module: L.LightningModule, *, average: bool) -> None:
        """Exchange the network's tensors with the stored ones, unless those wanted stand there already."""
        if average != self.in_place:
            for kept, tensor in zip(self.stored, _tensors(pl_module), strict=True):
                other = tensor.detach().clone()
                tensor.data.copy_(kept)
                kept.copy_(other)
            self.in_place = average


def _named(pl_module: L.LightningModule) -> dict[str, Tensor]:
    """The network's parameters and buffers as a checkpoint names them."""
    assert isinstance(pl_module, EmotionClassifier)
    return {f"net.{name}": tensor for name, tensor in pl_module.net.state_dict(keep_vars=True).items()}


def _tensors(pl_module: L.LightningModule) -> list[Tensor]:
    return list(_named(pl_module).values())
