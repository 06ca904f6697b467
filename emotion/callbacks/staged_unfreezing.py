"""Training in stages: first the new head, then more of the network, until all of it learns."""

from collections.abc import Mapping
from typing import Any

import lightning as L
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from emotion.classifier import EmotionClassifier
from emotion.errors import UserError

Stage = Mapping[str, Any]
KEYS = {"train", "epochs", "batch_norm"}


class StagedUnfreezing(L.Callback):
    """Says for each epoch which part of the network learns. Parts are counted in the network's own blocks (`depths`).

    What is frozen neither has gradients nor updates its batch-normalisation statistics, so that it comes out of a stage
    bit-equal. All parameters are the optimiser's from the start, whatever stage they join in.

    Args:
        stages: by name and in order, each with
            train: "head", "all", or so many of the last blocks besides the head;
            epochs: how long; null, of the last one alone, until the end;
            batch_norm: "frozen" keeps the statistics of parts that learn as well; "train" by default.

    Raises:
        UserError: a stage says something else.
    """

    def __init__(self, stages: Mapping[str, Stage]) -> None:
        self.stages = {name: dict(stage) for name, stage in stages.items()}
        self.ends: list[int] = []
        for place, (name, stage) in enumerate(self.stages.items(), 1):
            train, epochs, norm = stage.get("train"), stage.get("epochs"), stage.setdefault("batch_norm", "train")
            number = isinstance(train, int) and not isinstance(train, bool) and train >= 0
            if not (train in ("head", "all") or number) or norm not in ("train", "frozen") or stage.keys() - KEYS:
                raise UserError(
                    f"stage {name}: {stage}; expected train=head, train=all or train=NUMBER of last blocks, "
                    f"epochs=NUMBER, and batch_norm=train or frozen."
                )
            last = place == len(self.stages)
            if not (isinstance(epochs, int) and epochs >= 0) and not (last and epochs is None):
                raise UserError(f"stage {name}: epochs={epochs}; expected a number, or null for the last stage alone.")
            self.ends.append((self.ends[-1] if self.ends else 0) + (epochs if epochs is not None else 2**31))
        if not self.stages:
            raise UserError("stages: none; expected at least one, such as {finetune: {train: all, epochs: null}}.")

    def phase(self, epoch: int) -> str:
        """The name of an epoch's stage; after the last one's end it goes on."""
        names = list(self.stages)
        return next((name for name, end in zip(names, self.ends, strict=True) if epoch < end), names[-1])

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse a later stage that the network cannot do before the first one takes its time."""
        assert isinstance(pl_module, EmotionClassifier)
        for stage in self.stages.values():
            learning(pl_module.net, stage["train"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin, or go on in the middle of an epoch."""
        self._set(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Freeze and unfreeze what the epoch's stage says."""
        self._set(trainer, pl_module)

    def _set(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, EmotionClassifier)
        stage = self.stages[self.phase(trainer.current_epoch)]
        freeze(pl_module.net, stage["train"], batch_norm=stage["batch_norm"])


def learning(net: nn.Module, train: str | int) -> int:
    """How many blocks besides the head learn.

    Raises:
        UserError: the network has not so many.
    """
    head = max(net.depths().values())  # type: ignore[operator]
    blocks = int({"head": 0, "all": head}.get(str(train), train))
    if blocks > head:
        raise UserError(
            f"train={train}: {type(net).__name__} has {head} blocks before its head; expected at most so many."
        )
    return blocks


def freeze(net: nn.Module, train: str | int, batch_norm: str = "train") -> None:
    """Let the head, all, or so many last blocks besides the head learn; nothing else of `net`, its statistics included.

    Raises:
        UserError: the network has not so many blocks.
    """
    depths: dict[str, int] = net.depths()  # type: ignore[operator]
    head = max(depths.values())
    first = head - learning(net, train)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(depths[name] >= first)
    for name, module in net.named_modules():
        if isinstance(module, _BatchNorm):
            own = module if module.affine else net.get_submodule(name.rpartition(".")[0])
            learns = any(parameter.requires_grad for parameter in own.parameters())
            module.train(learns and (batch_norm == "train" or depths.get(f"{name}.weight") == head))
