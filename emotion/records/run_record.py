"""Run records: what was run, on what data, with what result. A score without a record does not count."""

import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from emotion.checkpoints import portable
from emotion.checkpoints.load import LoadedCheckpoint
from emotion.checkpoints.locate import PORTABLE_SUFFIX, ZOO
from emotion.config.instantiate import network_name
from emotion.config.migrate import migrate
from emotion.data.dataloader import num_evaluated
from emotion.io import bounded, digests
from emotion.io.atomic import write_json

RECORD = digests.RECORD
FIRST_EPOCH = "first_epoch"
"""Key of a record whose epochs count from this number, 1; records of former versions lack it and count from 0."""
PACKAGES = ("torch", "torchvision", "timm", "lightning", "hydra-core", "torchmetrics", "kornia", "numpy")


@dataclass
class RunRecord:
    """The content of a run's record.json. The file omits fields that have their default."""

    command: str = ""
    commit: str | None = None  # ends in "+changes" if the source was edited since
    versions: dict[str, str] = field(default_factory=dict)  # of Python and packages
    machine: dict[str, Any] = field(default_factory=dict)  # device, precision, channels_last, compiled
    config: dict[str, Any] = field(default_factory=dict)  # resolved
    data: dict[str, Any] = field(default_factory=dict)  # source, digest, synthetic; mix and exclusions if configured
    split: dict[str, int] = field(default_factory=dict)  # number of rows by part: train, val, test
    distillation: dict[str, Any] | None = None  # temperature, weight, the teachers' checkpoints
    parameters: int = 0
    effective: dict[str, Any] = field(default_factory=dict)  # factors of the effective batch size; learning rate
    weights: dict[str, Any] | None = None  # tensors that were loaded before training
    resumed: list[dict[str, str | None]] = field(default_factory=list)  # command and commit of each resume
    epochs: int = 0
    fit_seconds: float = 0.0  # of training, over all resumes
    epoch_seconds: list[float] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)  # epoch, score; the metric and mode that chose it
    calibration: dict[str, Any] | None = None  # temperature; NLL and ECE on validation before and after
    scores: dict[str, Any] | None = None  # by part and TTA; {} for a trial of a search; None before scoring
    wall_seconds: float | None = None  # from the start to the scores; None if resumed
    pruned: dict[str, Any] | None = None  # epoch and score at which a search stopped the run
    files: dict[str, str] = field(default_factory=dict)  # SHA-256 of the run's files

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Make a record from the content of a record.json of any version; unknown fields are dropped."""
        content = migrate(content)
        record = cls(**{name: content[name] for name in _FIELDS if name in content})
        if FIRST_EPOCH not in content:  # former versions counted from 0
            teachers = record.distillation["teachers"] if record.distillation else []
            for counted in (record.best, record.pruned or {}, *teachers):
                if "epoch" in counted:
                    counted["epoch"] += 1
        return record

    @classmethod
    def read(cls, run_dir: Path) -> Self | None:
        """Return the record of a run, or None if it has none yet.

        Raises:
            UserError: The file is not JSON.
        """
        path = run_dir / RECORD
        return cls.from_dict(bounded.read_json_object(path)) if path.is_file() else None

    def to_dict(self) -> dict[str, Any]:
        """Return the content of record.json."""
        default = RunRecord()
        values = {name: getattr(self, name) for name in _FIELDS}
        changed = {name: value for name, value in values.items() if value != getattr(default, name)}
        return changed | {FIRST_EPOCH: 1}

    def write(self, run_dir: Path) -> None:
        """Write record.json into the run's folder."""
        write_json(run_dir / RECORD, self.to_dict())

    def missing_fields(self) -> list[str]:
        """Return the names of the fields that every finished run has and this one lacks."""
        required = ("command", "config", "data", "split", "parameters", "epochs", "best", "scores")
        return [name for name in required if not getattr(self, name)]

    def _repr_html_(self) -> str:
        """Show what was run and its test scores in a notebook."""
        facts = {
            "run": self.name,
            "command": self.command,
            "network": f"{self.network}, {self.parameters:,} parameters",
            "data": ", ".join([f"{self.data['source']}", *(f"{n:,} {part}" for part, n in self.split.items())]),
            "epochs": str(self.epochs),
        }
        for tta, scores in self.test_scores.items():
            for metric in ("accuracy", "macro_f1"):
                value, low, high = (100 * number for number in scores["all"][metric])
                facts[f"test {metric} %, tta={tta}"] = f"{value:.1f} [{low:.1f}, {high:.1f}]"
        rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in facts.items())
        return f"<table>{rows}</table>"

    @property
    def name(self) -> str:
        """Name of the run or its experiment."""
        return str(self.config.get("name", ""))

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.config["seed"])

    @property
    def title(self) -> str:
        """Name and seed of the run."""
        return f"{self.name} seed={self.seed}"

    @property
    def labels(self) -> dict[str, list[str]]:
        """The classes in order, each with the emotions of the data that it consists of."""
        labels: dict[str, list[str]] = self.config["labels"]
        return labels

    @property
    def network(self) -> str:
        """Name of the timm backbone or of the network's class."""
        return network_name(self.config["model"])

    @property
    def split_name(self) -> str:
        """Name of the split: official, stratified, ..."""
        return str(self.config["split"]["_target_"]).rpartition(".")[2]

    @property
    def study(self) -> dict[str, Any]:
        """The search of which the run is a trial; empty without one."""
        return self.config.get("study") or {}

    @property
    def is_synthetic(self) -> bool:
        """Whether the faces are synthetic."""
        return bool(self.data.get("synthetic"))

    @property
    def num_excluded(self) -> int:
        """Number of rows that the file of exclusions removed from the split."""
        excluded = self.data.get("exclusions") or {"rows": {}}
        return sum(excluded["rows"].values())

    @property
    def num_validated(self) -> int:
        """Number of validation faces that an epoch is scored on; `trainer.limit_val_batches` may leave some out."""
        limit = self.config["trainer"].get("limit_val_batches")
        processes = self.effective.get("processes", 1)
        return num_evaluated(self.split["val"], self.config["batch_size"], processes, 1.0 if limit is None else limit)

    @property
    def test_scores(self) -> dict[str, Any]:
        """Scores on test by TTA; empty if test was not evaluated."""
        scores: dict[str, Any] = (self.scores or {}).get("test", {})
        return scores


_FIELDS = tuple(one.name for one in fields(RunRecord))


def record_of_checkpoint(loaded: LoadedCheckpoint) -> RunRecord | None:
    """Return the record of the run that wrote a checkpoint, or None if it is not available."""
    if loaded.path.suffix == PORTABLE_SUFFIX:
        content = portable.read_description(loaded.path).record
        return RunRecord.from_dict(content) if content else None
    return RunRecord.read(loaded.path.parent.parent)


def checkpoint_title(loaded: LoadedCheckpoint) -> str:
    """Return the name and seed of the run that wrote a checkpoint, or the name of the file if they are not known.

    Weights of the package have a name of their own.
    """
    if loaded.path.parent == ZOO:
        return loaded.path.stem
    record = record_of_checkpoint(loaded)
    return record.title if record and record.config else loaded.path.name


def is_synthetic(checkpoints: Iterable[LoadedCheckpoint]) -> bool:
    """Return whether a checkpoint is known to be trained on synthetic faces."""
    records = map(record_of_checkpoint, checkpoints)
    return any(record is not None and record.is_synthetic for record in records)


def provenance(*packages: str) -> dict[str, Any]:
    """Return command, commit and versions (with those of further `packages`) for a file of results."""
    return {"command": command(), "commit": commit(), "versions": versions(*packages)}


def command() -> str:
    """Return the command line of this process as it was typed, the script `emotion` as `python -m emotion`."""
    script, *arguments = sys.orig_argv[1:]
    return shlex.join(["python", *(["-m", "emotion"] if Path(script).name == "emotion" else [script]), *arguments])


def commit() -> str | None:
    """Return the commit of the source, with "+changes" if it was edited since; None outside a clone."""
    root = Path(__file__).resolve().parents[2]
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel")) != root:
            return None
        changed = _git(root, "status", "--porcelain", "--", "emotion", "conf", "constraints.txt")
        return _git(root, "rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of the packages that a result may depend on."""
    return {"emotion": version("emotion"), "python": platform.python_version()} | {
        package: version(package) for package in (*PACKAGES, *packages)
    }


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
