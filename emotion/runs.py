"""The run record: what was run, on what, with what result. A score that is not in a record does not count."""

import glob
import json
import platform
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion.errors import UserError
from emotion.evaluation import Judged
from emotion.files import write_atomically, write_text

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "torchmetrics", "kornia", "numpy")
RECORD, PREDICTIONS = "record.json", "predictions.npz"
OF_ONE_RUN = {"seed", "name", "run_dir", "resume", "data", "data_dir", "cache_dir"}
"""Settings in which runs of one experiment may differ: chance and places."""


class Run(NamedTuple):
    """A run's folder and its record."""

    folder: Path
    record: dict[str, Any]


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


def read_predictions(run: Run) -> dict[str, NDArray[np.integer]]:
    """What `write_predictions` wrote.

    Raises:
        UserError: the file is missing or something else.
    """
    path = run.folder / PREDICTIONS
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as columns:
            found = {name: columns[name] for name in columns.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read ({error}); it is written at the end of a run, beside its record."
        ) from error
    if missing := {"rows", "labels", "clean", "none"} - set(found):
        raise UserError(f"{path} has no {', '.join(sorted(missing))}; expected what a run leaves beside its record.")
    return found


def find(sources: Sequence[str]) -> list[Run]:
    """The finished runs that folders and patterns name, each once: a folder is a run, or holds runs at any depth.

    Raises:
        UserError: one of them names no finished run.
    """
    found: dict[Path, Run] = {}
    for source in sources:
        folders = [Path(source)] if Path(source).exists() else [Path(name) for name in sorted(glob.glob(source))]
        records = [path for folder in folders for path in sorted(folder.rglob(RECORD))]
        read = [Run(path.parent, record) for path in records if (record := read_record(path.parent)) is not None]
        finished = [run for run in read if run.record.get("scores")]
        if not finished:
            state = f"{len(read)} unfinished ones" if read else "none" if folders else "no such folder"
            raise UserError(
                f"{source}: expected finished runs (folders with a {RECORD} that has scores); found {state}."
            )
        found |= {run.folder.resolve(): run for run in finished}
    return list(found.values())


def names(runs: Sequence[Run]) -> list[str]:
    """A name for each, as short as tells them all apart: the run's own, with its seed, with its folder, its path."""
    longer = (
        [run.record["config"]["name"] for run in runs],
        ["{name} seed={seed}".format(**run.record["config"]) for run in runs],
        [f"{run.record['config']['name']} {run.folder.name}" for run in runs],
    )
    return next((some for some in longer if len(set(some)) == len(runs)), [str(run.folder) for run in runs])


def seeds_of(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs grouped into those that differ in their seed alone, in the order of each group's first."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        config = run.record["config"]
        shared = {key: value for key, value in config.items() if key not in OF_ONE_RUN}
        text = json.dumps([shared, run.record["data"]["digest"]], sort_keys=True)
        groups.setdefault(text.replace(config["run_dir"], "RUN"), []).append(run)
    return list(groups.values())


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
