"""The run record: what was run, on what, with what result. A score that is not in a record does not count."""

import glob
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from omegaconf import MISSING

from emotion.checkpoints import portable
from emotion.checkpoints.load import Loaded
from emotion.checkpoints.locate import BEST_CHECKPOINT, SHIPPED
from emotion.config.migrate import migrate
from emotion.data.datamodule import SHUFFLED
from emotion.data.splits import NOTHING_DROPPED
from emotion.errors import UserError
from emotion.evaluation.score import Judged
from emotion.io import bounded, digests
from emotion.io.atomic import write_atomically

PACKAGES = ("torch", "torchvision", "timm", "lightning", "hydra-core", "torchmetrics", "kornia", "numpy")
RECORD, PREDICTIONS = digests.RECORD, "predictions.npz"
IN_A_RECORD = ("command", "commit", "config", "data", "split", "parameters", "epochs", "fit_seconds", "best", "scores")
OF_A_RECIPE = (
    "labels", "split", "sampler", "input", "augment", "model", "loss", "optimizer", "scheduler", "batch_size",
    "monitor", "overfit", "mixup", "distillation", "backbone_lr", "layer_decay", "target",
)  # fmt: skip
OF_THE_TRAINER = (
    "max_epochs", "devices", "num_nodes", "gradient_clip_val", "accumulate_grad_batches", "limit_train_batches",
    "limit_val_batches",
)  # fmt: skip
OF_THE_CALLBACKS = ("early_stopping", "staged_unfreezing", "ema")
DEFAULTS = {"sampler": SHUFFLED, "mixup": {}, "layer_decay": 1.0, "target": "majority"}


class Run(NamedTuple):
    """A run's folder and its record."""

    folder: Path
    record: dict[str, Any]


class Predictions(NamedTuple):
    """A run's test faces (N,): row in the source, label, whether its pixels are not in training, what the run said."""

    rows: NDArray[np.integer]
    labels: NDArray[np.integer]
    clean: NDArray[np.bool_]
    predicted: NDArray[np.integer]

    def of(self, chosen: NDArray[np.bool_]) -> "Predictions":
        """Of some faces."""
        return Predictions(self.rows[chosen], self.labels[chosen], self.clean[chosen], self.predicted[chosen])


def write_record(run_dir: Path, record: dict[str, Any]) -> None:
    """`record.json` in the run's folder, replacing the former one."""
    digests.write_json(run_dir / RECORD, record)


def read_record(run_dir: Path) -> dict[str, Any] | None:
    """The record of a run, None where it has none (yet).

    Raises:
        UserError: the file is not a record, or not as it was written.
    """
    path = run_dir / RECORD
    return migrate(digests.read_json(path)) if path.is_file() else None


def files_of(run_dir: Path) -> dict[str, str]:
    """Digests of what a finished run leaves and others read, for its record."""
    names = (str(BEST_CHECKPOINT), "rows.npz", PREDICTIONS, "metrics.csv", "label_map.json")
    return {name: digests.digest_of(run_dir / name) for name in names if (run_dir / name).is_file()}


def write_predictions(run_dir: Path, judged: Mapping[str, Judged]) -> Path:
    """`predictions.npz`: row, label, clean of each test face, and under each views' name what was predicted."""
    one = next(iter(judged.values()))
    faces = {"rows": one.rows, "labels": one.labels.astype(np.uint8), "clean": one.clean}
    columns: dict[str, Any] = faces | {tta: found.predicted.astype(np.uint8) for tta, found in judged.items()}
    path = run_dir / PREDICTIONS
    write_atomically(path, lambda temporary: np.savez_compressed(temporary, **columns))
    return path


def read_predictions(run: Run, tta: str) -> Predictions:
    """What a run wrote of its test faces, of one kind of views.

    Raises:
        UserError: the file is missing, or is not what `write_predictions` writes.
    """
    path, classes = run.folder / PREDICTIONS, len(run.record["config"]["labels"])
    expected = f"expected what a run leaves beside its record, with views {tta}"
    try:
        digests.check_listed(path)
        columns: dict[str, Any] = bounded.arrays_of(path)
        found = Predictions(*(columns[name] for name in ("rows", "labels", "clean", tta)))
    except bounded.UNREADABLE as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}); {expected}.") from error
    whole = all(column.shape == found.rows.shape and column.dtype.kind in "iub" for column in found)
    if not whole or found.rows.ndim != 1 or max(found.labels.max(initial=0), found.predicted.max(initial=0)) >= classes:
        raise UserError(f"{path} has columns that do not fit together or to {classes} classes; {expected}.")
    return found


def record_of(loaded: Loaded) -> dict[str, Any] | None:
    """Of the run that a checkpoint is from; None where it is not to be had."""
    if loaded.path.suffix == SHIPPED:
        found: dict[str, Any] | None = portable.description(loaded.path).get("record")
        return found
    return read_record(loaded.path.parent.parent)


def find(sources: Sequence[str]) -> list[Run]:
    """The finished runs that folders and patterns name, each once: a folder is a run, or holds runs at any depth.

    Copies of a run count once. Says how many unfinished ones are left out.

    Raises:
        UserError: one of them names no finished run, or a record lacks something.
    """
    found: dict[str, Run] = {}
    for source in sources:
        folders = [Path(source)] if Path(source).exists() else [Path(name) for name in sorted(glob.glob(source))]
        records = [path for folder in folders for path in sorted(folder.rglob(RECORD))]
        read = [Run(path.parent, record) for path in records if (record := read_record(path.parent)) is not None]
        finished = [run for run in read if run.record.get("scores")]
        if not finished:
            state = f"{len(read)} unfinished" if read else "none" if folders else "no such folder"
            raise UserError(f"{source}: expected finished runs, whose {RECORD} holds scores; found {state}.")
        if left_out := len(read) - len(finished):
            print(f"{source}: left out {left_out} unfinished", flush=True)
        for run in finished:
            if missing := [key for key in IN_A_RECORD if key not in run.record]:
                raise UserError(f"{run.folder / RECORD} has no {', '.join(missing)}; another version wrote it.")
            found.setdefault(json.dumps(run.record, sort_keys=True), run)
    return list(found.values())


def names(runs: Sequence[Run]) -> list[str]:
    """A name for each, as short as tells them all apart: the run's own, with its seed, with its folder, its path."""
    longer = (
        [run.record["config"]["name"] for run in runs],
        ["{name} seed={seed}".format(**run.record["config"]) for run in runs],
        [f"{run.record['config']['name']} {run.folder.name}" for run in runs],
    )
    return next((some for some in longer if len(set(some)) == len(runs)), [str(run.folder) for run in runs])


def recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a training's result but for chance, of a run's config; what an older one lacks is the default."""
    trainer = {key: config["trainer"].get(key) for key in OF_THE_TRAINER}
    if isinstance(trainer["devices"], list):  # by their numbers
        trainer["devices"] = len(trainer["devices"])
    decided = {key: config.get(key, DEFAULTS.get(key)) for key in OF_A_RECIPE}
    decided["model"] = {"weights": "random", **decided["model"]}
    decided["split"] = {**NOTHING_DROPPED, **decided["split"]}
    return decided | {"trainer": trainer} | {part: config["callbacks"].get(part) for part in OF_THE_CALLBACKS}


def differing(config: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """The parts of a run's recipe that are not as in `expected`, whose open values (`???`) take anything."""
    found, asked = recipe(config), recipe(expected)
    return [key for key in asked if not _fits(found[key], asked[key])]


def _fits(found: object, asked: object) -> bool:
    if isinstance(found, dict) and isinstance(asked, dict):
        return found.keys() == asked.keys() and all(_fits(found[key], asked[key]) for key in asked)
    return asked in (MISSING, found)


def seeds_of(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of one recipe on the same data together, the first of each seed, in the order of each group's first."""
    groups: dict[str, dict[int, Run]] = {}
    for run in runs:
        data = run.record["data"]
        mixed = {key: data.get("mix", {}).get(key) for key in ("digest", "percent")}
        dropped = (data.get("dropped") or {}).get("digest")
        key = json.dumps([recipe(run.record["config"]), data["digest"], mixed, dropped], sort_keys=True)
        groups.setdefault(key, {}).setdefault(run.record["config"]["seed"], run)
    return [list(group.values()) for group in groups.values()]


def command() -> str:
    """The command line of this process, as it was typed."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def commit() -> str | None:
    """The commit that the package's source stands at, "+changes" where it was edited since; None outside a clone."""
    root = Path(__file__).resolve().parent.parent.parent
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel")) != root:
            return None
        changed = _git(root, "status", "--porcelain", "--", "emotion", "conf", "constraints.txt")
        return _git(root, "rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Of Python and of the packages that a figure may depend on."""
    return {"emotion": version("emotion"), "python": platform.python_version()} | versions_of(*PACKAGES)


def versions_of(*packages: str) -> dict[str, str]:
    """Of further packages that a result may depend on."""
    return {package: version(package) for package in packages}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
