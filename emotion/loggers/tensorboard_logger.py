"""Curves of a run in TensorBoard."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only


class BoardLogger(TensorBoardLogger):
    """Lightning's TensorBoardLogger with one chart group per metric, in which training and validation are compared.

    `train/loss` and `val/loss` become `loss/train` and `loss/val`; the number of the epoch is not a chart.
    """

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log metrics by their names in TensorBoard."""
        super().log_metrics({board_name(name): value for name, value in metrics.items() if name != "epoch"}, step)


def board_name(metric: str) -> str:
    """Return the name of a metric in TensorBoard, which groups charts by the part before the slash."""
    stage, slash, name = metric.partition("/")
    return f"{name}/{stage}" if slash and stage in ("train", "val") else metric
