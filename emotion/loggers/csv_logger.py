"""A run's metrics as a table: metrics.csv, one row an epoch."""

import csv
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from emotion.io.atomic import write_text


class CsvLogger(Logger):
    """Keeps `metrics.csv` in `save_dir`: every metric that is logged with its epoch, one row for each epoch.

    A run that is resumed begins with the rows of its checkpoint, whatever became of the file, and arrives at the same
    table as one that was never stopped. Lightning's own CSVLogger deletes the former file on resuming.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self.rows: dict[int, dict[str, float]] = {}

    @property
    def name(self) -> str:
        """Its kind; the folder is the run's."""
        return "csv"

    @property
    def version(self) -> str:
        """None of its own: a run has one table."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add to the row of the metrics' epoch, and write the file anew."""
        if "epoch" in metrics:
            row = self.rows.setdefault(int(metrics["epoch"]), {})
            row.update({name: value for name, value in metrics.items() if name != "epoch"})
            self.write()

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: object, **kwargs: object) -> None:
        """The run record holds them."""

    @rank_zero_only
    def write(self) -> None:
        """The file anew."""
        write_text(self.path, self._text())

    def _text(self) -> str:
        names = sorted({name for row in self.rows.values() for name in row})
        table = csv.writer(text := io.StringIO(), lineterminator="\n")
        table.writerow(["epoch", *names])
        table.writerows([epoch, *(row.get(name, "") for name in names)] for epoch, row in sorted(self.rows.items()))
        return text.getvalue()


def read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """The rows of a metrics.csv by epoch."""
    with path.open(newline="") as file:
        return {
            int(row.pop("epoch")): {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        }
