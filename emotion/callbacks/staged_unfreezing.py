"""Train in stages: first the new head, then more of the network, up to all of it."""

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import lightning as L
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from emotion.classifier import EmotionClassifier
from emotion.errors import UserError

Stage = Mapping[str, Any]
STAGE_KEYS = {"train", "epochs", "batch_norm"}
FOREVER = 2**31


class StagedUnfreezing(L.Callback):
    """Freeze and unfreeze parts of the network by epoch, counted in the network's own blocks (`depths`).

    Frozen parameters have no gradients and frozen batch norms do not update their statistics, so that frozen parts do
    not change at all. The optimizer has all parameters from the start.

    Args:
        stages: Stages by name, in order, each with
            train: "head", "all", or the number of last blocks to train besides the head;
            epochs: number of epochs; null, in the last stage only, for the rest of the run;
            batch_norm: "frozen" also keeps the statistics of trained parts; "train" by default.

    Raises:
        UserError: A stage is invalid.
    """

    def __init__(self, stages: Mapping[str, Stage]) -> None:
        self.stages = {name: dict(stage) for name, stage in stages.items()}
        self.ends: list[int] = []
        for index, (name, stage) in enumerate(self.stages.items(), start=1):
            train, epochs, norm = stage.get("train"), stage.get("epochs"), stage.setdefault("batch_norm", "train")
            is_number = isinstance(train, int) and not isinstance(train, bool) and train >= 0
            if (
                not (train in ("head", "all") or is_number)
                or norm not in ("train", "frozen")
                or stage.keys() - STAGE_KEYS
            ):
                raise UserError(
                    f"stage {name}: {stage}; expected train=head, train=all or train=NUMBER of last blocks, "
                    f"epochs=NUMBER, and batch_norm=train or frozen."
                )
            is_last = index == len(self.stages)
            if not (isinstance(epochs, int) and epochs >= 0) and not (is_last and epochs is None):
                raise UserError(f"stage {name}: epochs={epochs}; expected a number, or null in the last stage only.")
            self.ends.append(FOREVER if is_last or epochs is None else sum(self.ends[-1:]) + epochs)
        if not self.stages:
            raise UserError("stages: none; expected at least one, such as {finetune: {train: all, epochs: null}}.")

    @staticmethod
    def of(trainer: L.Trainer) -> "StagedUnfreezing | None":
        """Return the trainer's staged unfreezing, if it has one."""
        return next((c for c in trainer.callbacks if isinstance(c, StagedUnfreezing)), None)  # type: ignore[attr-defined]

    def phase(self, epoch: int) -> str:
        """Return the name of the stage of an epoch (from 0); the last stage continues after its end."""
        return list(self.stages)[bisect_right(self.ends, epoch)]

    def end(self, epoch: int) -> int:
        """Return the epoch before which the stage of an epoch ends; in the last stage `FOREVER`."""
        return self.ends[bisect_right(self.ends, epoch)]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raise UserError before the first stage if any stage has more blocks than the network."""
        assert isinstance(pl_module, EmotionClassifier)
        for stage in self.stages.values():
            num_trained_blocks(pl_module.net, stage["train"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Apply the stage, also in an epoch that is resumed in its middle."""
        self._apply(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Apply the stage of the epoch."""
        self._apply(trainer, pl_module)

    def _apply(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, EmotionClassifier)
        stage = self.stages[self.phase(trainer.current_epoch)]
        freeze(pl_module.net, stage["train"], batch_norm=stage["batch_norm"])


def num_trained_blocks(net: nn.Module, train: str | int) -> int:
    """Return the number of trained blocks besides the head; raises UserError if the network has fewer."""
    head = max(net.depths().values())  # type: ignore[operator]
    blocks = int({"head": 0, "all": head}.get(str(train), train))
    if blocks > head:
        raise UserError(
            f"train={train}: {type(net).__name__} has {head} blocks before its head; expected at most {head}."
        )
    return blocks


def freeze(net: nn.Module, train: str | int, batch_norm: str = "train") -> None:
    """Train the head, all, or a number of last blocks besides the head; freeze the rest with its batch statistics."""
    depths: dict[str, int] = net.depths()  # type: ignore[operator]
    head = max(depths.values())
    first = head - num_trained_blocks(net, train)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(depths[name] >= first)
    for name, module in net.named_modules():
        if isinstance(module, _BatchNorm):
            owner = module if module.affine else net.get_submodule(name.rpartition(".")[0])
            is_trained = any(parameter.requires_grad for parameter in owner.parameters())
            module.train(is_trained and (batch_norm == "train" or depths.get(f"{name}.weight") == head))
