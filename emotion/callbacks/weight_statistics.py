"""Statistics of weights and gradients by epoch, to find dead, frozen or diverging parameters."""

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
from emotion.errors import UserError, first_few
from emotion.io.atomic import make_folder, write_text

STATISTICS = ("mean", "std", "min", "max", "L2")
Statistics = dict[str, list[float]]
"""By parameter, in the order of STATISTICS."""

CHOICES = {"head": r"^head\.", "all": ""}
MAX_NAMES = 5
"""Parameters named in a warning."""


class WeightStatistics(L.Callback):
    """Print and dump the statistics after every `every_n_epochs`-th epoch, and add histograms to TensorBoard.

    Gradients are those of the epoch's last optimizer step, before clipping; "-" for a parameter without one, and for
    all if the run ended within the epoch. Weights are the trained ones, even if their moving average is validated. The
    other steps cost no time.

    Args:
        only: head, all, or a regular expression to search in parameter names.
        every_n_epochs: Epochs between two tables.
        table: Whether to print the table.
        dump: File with a section per table, to which a resumed run appends; None: no file.

    Raises (when training starts):
        UserError: `only` selects no parameter.
    """

    def __init__(
        self, only: str = "head", every_n_epochs: int = 1, table: bool = True, dump: str | None = None
    ) -> None:
        try:
            self.pattern = re.compile(CHOICES.get(only, only))
        except re.error as error:
            raise UserError(f"weight_statistics.only={only}: {error}; expected a regular expression.") from error
        self.only, self.every_n_epochs, self.table = only, every_n_epochs, table
        self.dump = Path(dump) if dump else None
        self.gradients: Statistics = {}

    def state_dict(self) -> dict[str, Statistics]:
        """Return the gradients of an epoch after its last step, for a run that is stopped during validation."""
        return {"gradients": self.gradients}

    def load_state_dict(self, state_dict: dict[str, Statistics]) -> None:
        """Restore them."""
        self.gradients = state_dict["gradients"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that a parameter is selected."""
        if not self._select(pl_module):
            assert isinstance(pl_module, EmotionClassifier)
            names = [name for name, _ in pl_module.net.named_parameters()]
            raise UserError(
                f"weight_statistics.only={self.only} matches no parameter; expected head, all, or a regular expression "
                f"that matches some of {names[0]}, {names[1]}, ..., {names[-1]}."
            )

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """In the epoch's last step, compute the statistics of the gradients before the next epoch clears them."""
        is_last = trainer.is_last_batch or trainer.global_step + 1 == trainer.max_steps
        if is_last and self._is_due(trainer):
            parameters = self._select(pl_module)
            gradients = {name: p.grad for name, p in parameters.items() if p.requires_grad and p.grad is not None}
            self.gradients = statistics(gradients)
            _add_histograms(trainer, "gradients", gradients, trainer.global_step + 1)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print, dump and add histograms; warn of values that are not finite."""
        if not self._is_due(trainer):
            return
        values = self._trained_weights(trainer, pl_module)
        weights, gradients, self.gradients = statistics(values), self.gradients, {}
        _add_histograms(trainer, "weights", values, trainer.global_step)
        epoch = trainer.current_epoch + 1
        title = f"epoch {epoch}/{trainer.max_epochs}, step {trainer.global_step}"
        if self.table:
            print(f"\nWeights after {title}\n{format_table(weights, gradients, digits=3)}\n", flush=True)
        if self.dump:
            self._write(self.dump, epoch, f"{title}\n{format_table(weights, gradients, digits=7)}\n")
        if names := describe_non_finite({"weights": weights, "gradients": gradients}):
            print(f"*** epoch {epoch}: not finite: {names} ***", flush=True)

    def _is_due(self, trainer: L.Trainer) -> bool:
        return trainer.is_global_zero and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _select(self, pl_module: L.LightningModule) -> dict[str, torch.nn.Parameter]:
        assert isinstance(pl_module, EmotionClassifier)
        return {name: p for name, p in pl_module.net.named_parameters() if self.pattern.search(name)}

    def _trained_weights(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Tensor]:
        """Return the selected weights, or the raw ones where their average has replaced them in the network."""
        weights: dict[str, Tensor] = dict(self._select(pl_module))
        for callback in (c for c in trainer.callbacks if isinstance(c, ExponentialMovingAverage)):  # type: ignore[attr-defined]
            weights = {name: value for name, value in callback.raw_weights(pl_module).items() if name in weights}
        return weights

    @staticmethod
    def _write(path: Path, epoch: int, section: str) -> None:
        """Write the section after those of earlier epochs; later ones are of a run that is trained again from here."""
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        sections = re.findall(r"^epoch (\d+)(.*?)(?=^epoch |\Z)", text, re.MULTILINE | re.DOTALL)
        earlier = [f"epoch {number}{rest}" for number, rest in sections if int(number) < epoch]
        make_folder(path.parent)
        write_text(path, "".join([*earlier, section]))


def statistics(values: Mapping[str, Tensor]) -> Statistics:
    """Return the statistics of each tensor, with one device synchronization; std is the population's."""
    if not values:
        return {}
    floats = [value.detach().float() for value in values.values()]
    rows = [torch.stack([v.mean(), v.std(correction=0), v.min(), v.max(), v.norm()]) for v in floats]
    return dict(zip(values, torch.stack(rows).tolist(), strict=True))


def format_table(weights: Statistics, gradients: Statistics, digits: int) -> str:
    """Format two lines per parameter; with 3 digits a head fits in 80 columns, a whole network in 120."""
    name_width, width = max(map(len, [*weights, "parameter"])), digits + 6
    dashes = "".join(f"  {'-':>{width}}" for _ in STATISTICS)
    lines = [f"{'parameter':<{name_width}}  {'':8}" + "".join(f"  {name:>{width}}" for name in STATISTICS)]
    for name, values in weights.items():
        for label, kind, row in ((name, "weight", values), ("", "gradient", gradients.get(name))):
            cells = "".join(f"  {value:>{width}.{digits - 1}e}" for value in row) if row else dashes
            lines.append(f"{label:<{name_width}}  {kind:8}{cells}")
    return "\n".join(lines)


def describe_non_finite(kinds: Mapping[str, Statistics]) -> str:
    """Name the parameters with values that are not finite: "weights of head.0.bias"; empty if there are none."""
    parts = []
    for kind, rows in kinds.items():
        names = [name for name, (_, _, low, high, _) in rows.items() if not abs(low) + abs(high) < float("inf")]
        parts += [f"{kind} of {first_few(names, MAX_NAMES)}"] if names else []
    return "; ".join(parts)


def _add_histograms(trainer: L.Trainer, kind: str, values: Mapping[str, Tensor], step: int) -> None:
    """Add histograms of the finite values, the only ones that TensorBoard accepts."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            for name, value in values.items():
                finite = value.detach().float()
                finite = finite[finite.isfinite()]
                if len(finite):
                    logger.experiment.add_histogram(f"{kind}/{name}", finite, step)
