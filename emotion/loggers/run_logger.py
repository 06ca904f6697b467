"""What experiment trackers are told of a run."""

from abc import abstractmethod
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.loggers import Logger

from emotion.io.atomic import write_text
from emotion.records.run_record import read_record


class Tracker(Logger):
    """A run as an experiment tracker keeps it: its settings, each epoch's metrics, its final scores.

    The tracker's id of the run lies in the run's folder, `<kind>_run.txt`: what was stopped and goes on goes on there.

    Args:
        save_dir: the run's folder, which with the seed names the run.
        seed: the run's.
    """

    kind: ClassVar[str]

    def __init__(self, save_dir: str, seed: int) -> None:
        super().__init__()
        self.folder = Path(save_dir)
        own = self.folder.name
        self.title = own if f"seed={seed}" in own.split(",") else f"{own}, seed {seed}"

    @property
    def name(self) -> str:
        """Its kind; the folder is the run's."""
        return self.kind

    @property
    def version(self) -> str:
        """None of its own: a run is tracked once."""
        return ""

    @abstractmethod
    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Keep the final scores; nothing follows."""

    def kept_id(self) -> str | None:
        """The tracker's id of this run, where it was begun before."""
        path = self.folder / f"{self.kind}_run.txt"
        return path.read_text().strip() if path.is_file() else None

    def keep_id(self, run_id: str) -> None:
        """Leave the tracker's id in the run's folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / f"{self.kind}_run.txt", f"{run_id}\n")

    def record(self) -> dict[str, Any]:
        """The run's, as far as it is written."""
        return read_record(self.folder) or {}

    def settings(self, given: dict[str, Any] | Namespace) -> dict[str, Any]:
        """Of the run's record, or those given where it has none; but for the loggers', whose address may be secret."""
        settings = self.record().get("config") or (vars(given) if isinstance(given, Namespace) else given)
        return {name: value for name, value in settings.items() if name != "logger"}


def missing(package: str, error: ImportError) -> str:
    """What to install."""
    return f"logger={package} needs a package that is not there ({error}): pip install 'emotion[{package}]'"


def first_line(error: Exception) -> str:
    """Of what an error says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
