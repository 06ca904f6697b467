"""The run record: what was run, on what, with what result. A score that is not in a record does not count."""

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from emotion.errors import UserError
from emotion.evaluation import Judged
from emotion.files import write_atomically, write_text

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "torchmetrics", "kornia", "numpy")
RECORD, PREDICTIONS = "record.json", "predictions.npz"


def write_record(run_dir: Path, record: dict[str, Any]) -> None:
    """`record.json` in the run's folder, replacing the former one."""
    write_text(run_dir / RECORD, json.dumps(record, indent=2) + "\n")


def read_record(run_dir: Path) -> dict[str, Any] | None:
    """The record of a run, None where it has none (yet).

    Raises:
        UserError: the file is not a record.
    """
    path = run_dir / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not a run record: {error}. Remove it, or restore it from a copy.") from error
    if not isinstance(record, dict):
        raise UserError(f"{path} is not a run record: found {type(record).__name__}, expected an object.")
    return record


def write_predictions(run_dir: Path, judged: Mapping[str, Judged]) -> Path:
    """`predictions.npz`: row, label, clean of each test face, and under each views' name what was predicted."""
    one = next(iter(judged.values()))
    faces = {"rows": one.rows, "labels": one.labels.astype(np.uint8), "clean": one.clean}
    columns: dict[str, Any] = faces | {views: found.predicted.astype(np.uint8) for views, found in judged.items()}
    path = run_dir / PREDICTIONS
    write_atomically(path, lambda temporary: np.savez_compressed(temporary, **columns))
    return path


def command() -> str:
    """The command line of this process, as it was typed."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def commit() -> str | None:
    """The commit that the package's source stands at, "+changes" where it was edited since; None outside a clone."""
    root = Path(__file__).resolve().parent.parent
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel")) != root:
            return None
        changed = _git(root, "status", "--porcelain", "--", "emotion", "conf", "constraints.txt")
        return _git(root, "rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Of Python and of the packages that a figure may depend on."""
    return {"emotion": version("emotion"), "python": platform.python_version()} | {p: version(p) for p in PACKAGES}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
