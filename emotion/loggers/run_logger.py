"""Common part of the experiment trackers, MLflow and Weights & Biases; CSV and TensorBoard do not use it."""

from abc import abstractmethod
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.loggers import Logger

from emotion.io.atomic import make_folder, write_text
from emotion.records.run_record import RunRecord


class RunLogger(Logger):
    """An experiment tracker that logs the settings, the metrics of each epoch and the final scores of a run.

    The tracker's id of the run is stored in the run's folder (`<kind>_run.txt`), so that a resumed run continues it.
    """

    kind: ClassVar[str]
    folder: Path
    seed: int

    @property
    def title(self) -> str:
        """The name of the run in the tracker: its folder and its seed."""
        name = self.folder.name
        return name if f"seed={self.seed}" in name.split(",") else f"{name}, seed {self.seed}"

    @abstractmethod
    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Log the final scores and end the run."""

    def read_id(self) -> str | None:
        """Return the tracker's id of this run, if it was tracked before."""
        path = self.folder / f"{self.kind}_run.txt"
        return path.read_text().strip() if path.is_file() else None

    def write_id(self, run_id: str) -> None:
        """Store the tracker's id in the run's folder."""
        make_folder(self.folder)
        write_text(self.folder / f"{self.kind}_run.txt", f"{run_id}\n")

    def record(self) -> RunRecord:
        """Return the run's record as far as it is written."""
        return RunRecord.read(self.folder) or RunRecord()

    def settings(self, params: dict[str, Any] | Namespace) -> dict[str, Any]:
        """Return the config in the run's record (else `params`) without the loggers: their address may be secret."""
        settings = self.record().config or (vars(params) if isinstance(params, Namespace) else params)
        return {name: value for name, value in settings.items() if name != "logger"}
