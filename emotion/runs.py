"""List, sort and remove runs: python -m emotion.runs [FOLDER ...] [state=failed] [remove=runs confirm=true]."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from emotion.cli import join_bare_arguments, verb
from emotion.config.compose import as_list
from emotion.config.typed import typed
from emotion.errors import UserError
from emotion.reporting.text import format_duration, format_percent, relative_path

if TYPE_CHECKING:
    from emotion.records.run_folder import Run

NUMBERS = ("val", "test", "epochs", "minutes", "mb")
SORT, REMOVE = ("run", *NUMBERS), ("runs", "checkpoints")


@dataclass(frozen=True)
class RunsConfig:
    """The settings of conf/runs.yaml."""

    data_dir: str
    cache_dir: str
    runs: Any
    name: str | None
    state: Any
    sort: str
    csv: str | None
    remove: str | None
    confirm: bool


def runs(cfg: DictConfig) -> list["Run"]:
    """List the runs in folders, write them to a CSV file and, if asked, remove runs or checkpoints; return the runs.

    Raises:
        UserError: A folder does not exist or a setting is invalid.
    """
    config = typed(cfg, RunsConfig)
    from emotion.io.atomic import write_text
    from emotion.records.run_folder import STATES, find_runs
    from emotion.reporting.tables import csv_table

    states = as_list(config.state or [])
    for key, values, choices in (
        ("sort", [config.sort], SORT),
        ("remove", [config.remove or REMOVE[0]], REMOVE),
        ("state", states, STATES),
    ):
        if unknown := [value for value in values if value not in choices]:
            raise UserError(f"{key}={','.join(unknown)}: expected {', '.join(choices)}.")
    folders = [Path(name) for name in as_list(config.runs)]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise UserError(f"{', '.join(missing)} does not exist; expected folders that contain runs, such as outputs.")
    all_runs = list({run.folder.absolute(): run for folder in folders for run in find_runs(folder)}.values())
    found = [
        run
        for run in all_runs
        if (not states or run.state in states) and fnmatchcase(run.record.name, config.name or "*")
    ]
    numbers = {run.folder: _numbers(run) for run in found}
    if config.sort != "run":
        found.sort(key=lambda run: _sort_key(run, numbers[run.folder][config.sort], config.sort))
    _print(found, numbers, len(all_runs))
    if config.csv and found:
        path = Path(config.csv)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, csv_table(_csv_rows(found, numbers)))
        print(f"wrote {path}")
    if config.remove:
        _remove(found, config)
    return found


def _numbers(run: "Run") -> dict[str, float]:
    """Return what runs can be sorted by; NaN if unknown."""
    from emotion.records.run_folder import folder_size

    record = run.record
    return {
        "val": record.best.get("score", math.nan),
        "test": record.test_scores["none"]["all"]["accuracy"][0] if record.test_scores else math.nan,
        "epochs": record.epochs or math.nan,
        "minutes": record.fit_seconds / 60 or math.nan,
        "mb": folder_size(run.folder) / 1e6,
    }


def _sort_key(run: "Run", number: float, column: str) -> tuple[bool, float]:
    """Sort descending, a validation score best first, and unknown numbers last."""
    ascending = column == "val" and run.record.best.get("mode") == "min"
    return math.isnan(number), number if ascending else -number


def _print(found: Sequence["Run"], numbers: Mapping[Path, Mapping[str, float]], total: int) -> None:
    from emotion.reporting.tables import print_table

    if not found:
        print(f"none of {total} runs")
        return
    rows = []
    for run in found:
        record, test = run.record, numbers[run.folder]["test"]
        best, epochs = record.best, record.epochs
        if record.pruned:
            epochs = record.pruned["epoch"] + 1
            best = {"metric": record.config["monitor"]["metric"], **record.pruned}
        rows.append(
            {
                "run": str(relative_path(run.folder)),
                "state": run.state + " *" * record.is_synthetic,
                "epochs": str(epochs or "-"),
                "val": f"{best['metric']} {best['score']:.4f}" if best else "-",
                "test %": format_percent(None if math.isnan(test) else test),
                "time": format_duration(record.fit_seconds) if record.fit_seconds else "-",
                "MB": f"{numbers[run.folder]['mb']:.1f}",
            }
        )
    print_table(f"{len(found)} of {total} runs", rows, left=2)
    if any(run.record.is_synthetic for run in found):
        print("* on SYNTHETIC faces")
    for run in found:
        if run.error:
            print(f"{relative_path(run.folder)}: {run.error.splitlines()[-1]}")


def _csv_rows(found: Sequence["Run"], numbers: Mapping[Path, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return a row for each run: state, numbers, and the settings in which the runs differ."""
    settings = [dict(_flatten(run.record.config)) for run in found]
    keys = dict.fromkeys(key for own in settings for key in own)
    differing = [key for key in keys if len({repr(own.get(key)) for own in settings}) > 1]
    return [
        {"run": str(relative_path(run.folder)), "state": run.state, "metric": run.record.best.get("metric")}
        | {key: None if math.isnan(number) else number for key, number in numbers[run.folder].items()}
        | {key: own.get(key) for key in differing}
        for run, own in zip(found, settings, strict=True)
    ]


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the settings as pairs of a dotted key and a value."""
    pairs: list[tuple[str, Any]] = []
    for key, value in settings.items():
        is_group = isinstance(value, Mapping)
        pairs += _flatten(value, f"{prefix}{key}.") if is_group else [(f"{prefix}{key}", value)]
    return pairs


def _remove(found: Sequence["Run"], config: RunsConfig) -> None:
    """Remove runs, or the checkpoints for resuming finished ones; without confirm=true only print how many.

    Raises:
        UserError: Finished runs would be removed without being selected by state=.
    """
    from emotion.checkpoints.load import PREVIOUS_CHECKPOINT
    from emotion.checkpoints.locate import LAST_CHECKPOINT
    from emotion.records.run_folder import RunLocked, folder_size, lock_run, read_run

    remove_runs = config.remove == "runs"
    if remove_runs and not config.state and any(run.state == "finished" for run in found):
        raise UserError(
            "remove=runs would remove finished runs; select others by state=[failed,stopped]."
        )
    paths = {
        run.folder: [run.folder] if remove_runs else [run.folder / LAST_CHECKPOINT, run.folder / PREVIOUS_CHECKPOINT]
        for run in found
        if remove_runs or run.state in ("finished", "pruned")
    }
    existing = [path for own in paths.values() for path in own if path.exists()]
    megabytes = sum(folder_size(path) if path.is_dir() else path.stat().st_size for path in existing) / 1e6
    if not config.confirm:
        print(f"would remove {len(existing)} {config.remove}, {megabytes:.1f} MB; confirm=true removes them")
        return
    removed = 0
    for run in found:
        if not any(path.exists() for path in paths.get(run.folder, ())):
            continue
        try:
            with lock_run(run.folder):
                if read_run(run.folder).record != run.record:  # resumed in the meantime
                    continue
                for path in paths[run.folder]:
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink(missing_ok=True)
                removed += 1
        except RunLocked as error:
            print(f"kept: {error}")
    print(f"removed {removed} {config.remove}, {megabytes:.1f} MB")


@verb("runs")
def main(cfg: DictConfig) -> None:
    """List, sort and remove runs."""
    runs(cfg)


if __name__ == "__main__":
    join_bare_arguments("runs")
    main()
