"""Curves of a run in TensorBoard."""

import re
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only


class BoardLogger(TensorBoardLogger):
    """Lightning's TensorBoardLogger with one chart group per metric, in which training and validation are compared.

    `train/loss` and `val/loss` become `loss/train` and `loss/val`, because TensorBoard groups charts by the part before
    the slash; the number of the epoch is not a chart.
    """

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log metrics by their names in TensorBoard."""
        named = {re.sub("^(train|val)/(.*)", r"\2/\1", name): value for name, value in metrics.items()}
        super().log_metrics({name: value for name, value in named.items() if name != "epoch"}, step)
