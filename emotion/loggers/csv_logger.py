"""The metrics of a run as a table: metrics.csv, one row per epoch."""

import csv
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from emotion.io.atomic import write_text


class CsvLogger(Logger):
    """Write `metrics.csv` in `save_dir`: one row per epoch, with every metric logged in it.

    A resumed run starts from the rows in its checkpoint, so that it ends with the same table as an uninterrupted run.
    Lightning's CSVLogger deletes the existing file instead. The file counts epochs from 1.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self.rows: dict[int, dict[str, float]] = {}  # by Lightning's number of the epoch, from 0

    @property
    def name(self) -> str:
        """The kind of logger; the folder is the run's."""
        return "csv"

    @property
    def version(self) -> str:
        """Empty: a run has one table."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add metrics to the row of their epoch, and rewrite the file."""
        if "epoch" in metrics:
            row = self.rows.setdefault(int(metrics["epoch"]), {})
            row.update({name: value for name, value in metrics.items() if name != "epoch"})
            self.write()

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: object, **kwargs: object) -> None:
        """Do nothing: the run record contains the settings."""

    @rank_zero_only
    def write(self) -> None:
        """Write the file."""
        names = sorted({name for row in self.rows.values() for name in row})
        table = csv.writer(text := io.StringIO(), lineterminator="\n")
        table.writerow(["epoch", *names])
        table.writerows([epoch + 1, *(row.get(name, "") for name in names)] for epoch, row in sorted(self.rows.items()))
        write_text(self.path, text.getvalue())


def read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """Return the rows of a metrics.csv by epoch, counted from 1; former versions wrote it counted from 0."""
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    shift = any(row["epoch"] == "0" for row in table)
    return {
        int(row.pop("epoch")) + shift: {name: float(value) for name, value in row.items() if value} for row in table
    }
