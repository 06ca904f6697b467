"""Mean, deviation, extremes and norm of weights and gradients, epoch by epoch: what is dead, frozen or running away."""

import re
from collections.abc import Mapping
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.optim import Optimizer

from emotion.callbacks.ema import ExponentialMovingAverage
from emotion.classifier import EmotionClassifier
from emotion.errors import UserError
from emotion.io.atomic import write_text

Statistics = dict[str, list[float]]
"""By parameter, in the order of STATISTICS."""

STATISTICS = ("mean", "std", "min", "max", "L2")
CHOICES = {"head": r"^head\.", "all": ""}
NAMED = 5  # in a warning; where all is lost, all parameters would be


class WeightStatistics(L.Callback):
    """Prints and dumps them after every `every`-th epoch, and gives TensorBoard, where it is there, the histograms.

    Gradients are those of the epoch's last optimiser step, before clipping; a parameter without one, such as a frozen
    one, shows a dash, and all do where a run is ended within an epoch. Weights are those that learn, also where an
    average of them validates. Other steps than an epoch's last cost nothing.

    Args:
        only: head, all, or a regular expression that is searched in the parameters' names.
        every: epochs from one look to the next.
        table: whether to print.
        dump: a file with a section for each look; a resumed run arrives at the same one. Null for none.

    Raises (when training starts):
        UserError: no parameter is looked at.
    """

    def __init__(self, only: str = "head", every: int = 1, table: bool = True, dump: str | None = None) -> None:
        if every < 1:
            raise UserError(f"weight_statistics.every={every}; expected 1 or more epochs.")
        try:
            self.pattern = re.compile(CHOICES.get(only, only))
        except re.error as error:
            raise UserError(f"weight_statistics.only={only}: {error}; expected a regular expression.") from error
        self.only, self.every, self.table = only, every, table
        self.dump = Path(dump) if dump else None
        self.gradients: Statistics = {}

    def state_dict(self) -> dict[str, Statistics]:
        """The gradients of an epoch whose last step is taken, for a run that is stopped while it validates."""
        return {"gradients": self.gradients}

    def load_state_dict(self, state_dict: dict[str, Statistics]) -> None:
        """Go on with them."""
        self.gradients = state_dict["gradients"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse to look at nothing."""
        if not self._looked_at(pl_module):
            assert isinstance(pl_module, EmotionClassifier)
            names = [name for name, _ in pl_module.net.named_parameters()]
            raise UserError(
                f"weight_statistics.only={self.only} is in the name of no parameter; expected head, all, or a regular "
                f"expression for some of {names[0]}, {names[1]}, ..., {names[-1]}."
            )

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """In the epoch's last step: take the gradients, which the next epoch will have cleared."""
        last = trainer.is_last_batch or trainer.global_step + 1 == trainer.max_steps
        if last and self._due(trainer):
            found = self._looked_at(pl_module)
            gradients = {name: p.grad for name, p in found.items() if p.requires_grad and p.grad is not None}
            self.gradients = statistics(gradients)
            _histograms(trainer, "gradients", gradients, trainer.global_step + 1)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look."""
        if not self._due(trainer):
            return
        values = self._learning(trainer, pl_module)
        weights, gradients, self.gradients = statistics(values), self.gradients, {}
        _histograms(trainer, "weights", values, trainer.global_step)
        epoch = trainer.current_epoch + 1
        title = f"epoch {epoch}/{trainer.max_epochs}, step {trainer.global_step}"
        if self.table:
            print(f"\nWeights after {title}\n{tabulated(weights, gradients, 3)}\n", flush=True)
        if self.dump:
            self._write(epoch, f"{title}\n{tabulated(weights, gradients, 7)}\n")
        if said := not_finite({"weights": weights, "gradients": gradients}):
            print(f"*** epoch {epoch}: not finite: {said} ***", flush=True)

    def _due(self, trainer: L.Trainer) -> bool:
        return trainer.is_global_zero and (trainer.current_epoch + 1) % self.every == 0

    def _looked_at(self, pl_module: L.LightningModule) -> dict[str, torch.nn.Parameter]:
        assert isinstance(pl_module, EmotionClassifier)
        return {name: p for name, p in pl_module.net.named_parameters() if self.pattern.search(name)}

    def _learning(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Tensor]:
        """The weights that learn, where their average stands in the network by now."""
        found: dict[str, Tensor] = dict(self._looked_at(pl_module))
        for callback in (c for c in trainer.callbacks if isinstance(c, ExponentialMovingAverage)):  # type: ignore[attr-defined]
            found = {name: value for name, value in callback.raw(pl_module).items() if name in found}
        return found

    def _write(self, epoch: int, section: str) -> None:
        """Put the section after those of earlier epochs; later ones are of a run that was stopped and goes on here."""
        assert self.dump is not None
        former = self.dump.read_text(encoding="utf-8") if self.dump.is_file() else ""
        sections = re.findall(r"^epoch (\d+)(.*?)(?=^epoch |\Z)", former, re.MULTILINE | re.DOTALL)
        kept = [f"epoch {number}{rest}" for number, rest in sections if int(number) < epoch]
        self.dump.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.dump, "".join([*kept, section]))


def statistics(values: Mapping[str, Tensor]) -> Statistics:
    """Those of each tensor; the deviation is of all its values. However many there are, a device is waited for once."""
    if not values:
        return {}
    floats = [value.detach().float() for value in values.values()]
    each = [torch.stack([v.mean(), v.std(correction=0), v.min(), v.max(), v.norm()]) for v in floats]
    return dict(zip(values, torch.stack(each).tolist(), strict=True))


def tabulated(weights: Statistics, gradients: Statistics, figures: int) -> str:
    """Two lines a parameter, with so many significant figures; three fit 80 columns for a head, 120 for all."""
    names, width = max(map(len, [*weights, "parameter"])), figures + 6
    dashes = "".join(f"  {'-':>{width}}" for _ in STATISTICS)
    lines = [f"{'parameter':<{names}}  {'':8}" + "".join(f"  {name:>{width}}" for name in STATISTICS)]
    for name, found in weights.items():
        for label, kind, row in ((name, "weight", found), ("", "gradient", gradients.get(name))):
            cells = "".join(f"  {value:>{width}.{figures - 1}e}" for value in row) if row else dashes
            lines.append(f"{label:<{names}}  {kind:8}{cells}")
    return "\n".join(lines)


def not_finite(kinds: Mapping[str, Statistics]) -> str:
    """The parameters whose extremes, and so some of whose values, are not finite: "weights of head.0.bias"."""
    said = []
    for kind, found in kinds.items():
        lost = [name for name, (_, _, low, high, _) in found.items() if not abs(low) + abs(high) < float("inf")]
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        said += [f"{kind} of {', '.join(lost[:NAMED])}{more}"] if lost else []
    return "; ".join(said)


def _histograms(trainer: L.Trainer, kind: str, values: Mapping[str, Tensor], step: int) -> None:
    """Of what is finite: TensorBoard has no place for the rest."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            for name, value in values.items():
                finite = value.detach().float()
                finite = finite[finite.isfinite()]
                if len(finite):
                    logger.experiment.add_histogram(f"{kind}/{name}", finite, step)
