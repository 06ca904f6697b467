"""List, sort and remove runs: python -m emotion.runs [FOLDER ...] [state=failed] [remove=runs confirm=true]."""

import operator
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from emotion.cli import verb
from emotion.config.compose import as_list, flatten
from emotion.config.typed import check_choices, typed
from emotion.errors import UserError, counted, listing
from emotion.reporting.text import format_percent, format_size, relative_path
from emotion.runtime.announce import announce

if TYPE_CHECKING:
    from emotion.records.run_folder import Run

Row = dict[str, Any]
COMPARISON = re.compile(r"\s*(?P<key>[^<>=!]+?)\s*(?P<operator>==|!=|>=|<=|=|>|<)\s*(?P<value>.*?)\s*")
OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "=": operator.eq, "!=": operator.ne,
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
SORT, REMOVE = ("newest", "run", "score", "test", "epochs", "minutes", "mb"), ("runs", "checkpoints")


@dataclass(frozen=True)
class RunsConfig:
    """The settings of conf/runs.yaml."""

    data_dir: str
    cache_dir: str
    runs: Any
    name: str | None
    state: Any
    where: Any
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
    from emotion.io.folders import expand
    from emotion.records.run_folder import STATES, find_runs, skipped_archive

    states = as_list(config.state or [])
    if config.remove:
        check_choices(config, remove=REMOVE)
    if unknown := set(states) - set(STATES):
        raise UserError(f"state={','.join(sorted(unknown))}: expected {', '.join(STATES)}.")
    names = as_list(config.runs)
    folders = [Path(folder) for name in names for folder in expand(name)]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise UserError(f"{', '.join(missing)} does not exist; expected folders that contain runs, such as outputs.")
    announce(f"reading the runs in {' and '.join(names)}", sys.stderr)
    every = {run.folder.resolve(): run for folder in folders for run in find_runs(folder)}
    found = [
        (run, _row(run))
        for run in every.values()
        if (not states or run.state in states) and fnmatchcase(run.record.name, config.name or "*")
    ]
    for condition in as_list(config.where or []):
        found = _select(found, condition)
    column = "score" if config.sort in {row["metric"] for _, row in found} else config.sort.lower().removesuffix(" %")
    if column not in SORT:
        raise UserError(f"sort={config.sort}: expected {', '.join(SORT)}.")
    if column == "newest":
        found.sort(key=lambda pair: pair[0].folder.stat().st_mtime, reverse=True)
    elif column != "run":
        found.sort(key=lambda pair: _sort_key(pair[0], pair[1], column))
    _print(found, len(every), show_size=column == "mb" or config.remove is not None)
    for archive in filter(None, map(skipped_archive, folders)):
        print(f"The published runs are listed by: python -m emotion.runs {archive}")
    if config.csv and found:
        _write_csv(found, Path(config.csv))
    if config.remove:
        _remove([run for run, _ in found], config)
    return [run for run, _ in found]


def _row(run: "Run") -> Row:
    """Return the values of a run's columns; None if unknown."""
    from emotion.records.run_folder import folder_size

    record = run.record
    epochs, best = record.epochs, record.best
    if record.pruned:
        epochs, best = record.pruned["epoch"], {**record.config["monitor"], **record.pruned}
    return {
        "run": str(relative_path(run.folder)),
        "state": run.state,
        "metric": best.get("metric"),
        "score": best.get("score"),
        "test": record.test_scores["none"]["all"]["accuracy"][0] if record.test_scores else None,
        "epochs": epochs or None,
        "minutes": record.fit_seconds / 60 or None,
        "mb": folder_size(run.folder) / 1e6,
    }


def _select(found: Sequence[tuple["Run", Row]], condition: str) -> list[tuple["Run", Row]]:
    """Return the runs for which a comparison such as `val/acc>0.6`, `test %>60` or `optimizer.lr==0.001` holds.

    Raises:
        UserError: It is not a comparison, no run has such a setting, or a score is compared with a percentage.
    """
    match = COMPARISON.fullmatch(condition)
    if not match:
        raise UserError(
            f"where={condition}: expected NAME OPERATOR VALUE, with {' '.join(OPERATORS)}: where='score>0.6'."
        )
    compare, wanted = OPERATORS[match["operator"]], _number(match["value"])
    values = [_values(run, row) for run, row in found]
    names = dict.fromkeys(name for own in values for name in own)
    if found and match["key"] not in names:
        raise UserError(f"where={condition}: no run has {match['key']}; did you mean {_nearest(match['key'], names)}?")
    metrics = {str(row["metric"]) for _, row in found if row["metric"]}
    compared = metrics if match["key"] == "score" else {match["key"]} & {"test", *metrics}
    if compared and not any("loss" in name for name in compared) and isinstance(wanted, float) and not 0 <= wanted <= 1:
        raise UserError(
            f"where={condition}: {match['key']} is from 0 to 1, such as {match['key']}{match['operator']}0.6; for "
            f"percent, use the table's column test %: where='test %>60'."
        )
    known = [value for own in values if (value := _number(own.get(match["key"]))) is not None]
    if known and all(isinstance(value, float) != isinstance(wanted, float) for value in known):
        kind, example = ("a number", f"{known[0]:g}") if isinstance(known[0], float) else ("text", known[0])
        raise UserError(f"where={condition}: expected {kind}, as {match['key']} is in these runs, such as {example}.")
    selected = []
    for pair, own in zip(found, values, strict=True):
        value = _number(own.get(match["key"]))
        if isinstance(value, float) == isinstance(wanted, float) and value is not None and compare(value, wanted):
            selected.append(pair)
    return selected


def _nearest(key: str, names: Iterable[str]) -> str:
    """Return up to four of the names that a key may stand for: its parts, those that end in it, and similar ones."""
    near = ["name"] * (key in ("model", "experiment"))
    near += [name for name in names if name in (f"{key}._target_", key.lower()) or name.endswith(f".{key}")]
    near += get_close_matches(key, names)
    return ", ".join(list(dict.fromkeys(near))[:4] or SORT)


def _values(run: "Run", row: Row) -> Row:
    """Return what a run can be selected by: settings, columns, and the names that the table prints for these."""
    test = None if row["test"] is None else 100 * row["test"]
    metric = {row["metric"]: row["score"]} if row["metric"] else {}
    return {**dict(flatten(run.record.config)), **row, **metric, "test %": test, "MB": row["mb"]}


def _number(value: object) -> object:
    """Return a number, or its text, as a float; any other value as text, and None as it is."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return value if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _sort_key(run: "Run", row: Row, column: str) -> tuple[bool, float]:
    """Sort descending, a validation score best first, and unknown values last."""
    value = row[column]
    ascending = column == "score" and run.record.best.get("mode") == "min"
    return value is None, (value or 0.0) if ascending else -(value or 0.0)


def _print(found: Sequence[tuple["Run", Row]], total: int, *, show_size: bool) -> None:
    from emotion.reporting.tables import print_table

    if not found:
        print(f"none of {counted(total, 'run')}")
        return
    metrics = {row["metric"] for _, row in found if row["score"] is not None}
    title, score = f"{len(found)} of {counted(total, 'run')}", "{metric} {score:.4f}"
    if len(metrics) == 1:  # named once, as the table is wide
        title, score = f"{title}; score: {next(iter(metrics))}", "{score:.4f}"
    rows = [
        {
            "run": row["run"],
            "state": row["state"] + " *" * run.record.is_synthetic,
            "epochs": str(row["epochs"] or "-"),
            "score": "-" if row["score"] is None else score.format(**row),
            "test %": format_percent(row["test"]),
            "minutes": f"{row['minutes']:.1f}" if row["minutes"] else "-",
            **({"MB": f"{row['mb']:.1f}"} if show_size else {}),
        }
        for run, row in found
    ]
    print_table(title, rows, left=2)
    if any(run.record.is_synthetic for run, _ in found):
        print("* on SYNTHETIC faces")
    for run, row in found:
        if run.error:
            print(f"{row['run']}: {run.error.splitlines()[-1]}")


def _write_csv(found: Sequence[tuple["Run", Row]], path: Path) -> None:
    """Write a row for each run: the columns, then the settings in which the runs differ."""
    from emotion.io.atomic import make_folder, write_text
    from emotion.reporting.tables import csv_table

    settings = [dict(flatten(run.record.config)) for run, _ in found]
    keys = dict.fromkeys(key for own in settings for key in own)
    differing = [key for key in keys if len({repr(own.get(key)) for own in settings}) > 1]
    rows = [row | {key: own.get(key) for key in differing} for (_, row), own in zip(found, settings, strict=True)]
    make_folder(path.parent)
    write_text(path, csv_table(rows))
    print(f"wrote {path}")


def _remove(found: Sequence["Run"], config: RunsConfig) -> None:
    """Remove runs, or the checkpoints for resuming finished ones; without confirm=true only print how many.

    A run whose folder contains another one is removed only with that one. One with a checkpoint and a damaged record is
    kept, as it may be finished.

    Raises:
        UserError: Finished runs would be removed without being selected by state=.
    """
    from emotion.checkpoints.load import PREVIOUS_CHECKPOINT
    from emotion.checkpoints.locate import LAST_CHECKPOINT
    from emotion.records.run_folder import RunLocked, inner_runs, lock_run, read_run

    remove_runs = config.remove == "runs"
    if remove_runs and not config.state and any(run.state == "finished" for run in found):
        raise UserError("remove=runs would remove finished runs; select others by state=[failed,stopped].")
    found = sorted(found, key=lambda run: run.folder.resolve(), reverse=True)  # inner runs first
    paths: dict[Path, list[Path]] = {}
    for run in found:
        if not remove_runs:
            if run.state in ("finished", "pruned"):
                paths[run.folder] = [run.folder / LAST_CHECKPOINT, run.folder / PREVIOUS_CHECKPOINT]
        elif reason := _reason_to_keep(run, removed=paths):
            print(f"kept: {reason}")
        else:
            paths[run.folder] = [run.folder]
    sizes = _sizes(path for own in paths.values() for path in own)
    if not config.confirm:
        print(f"would remove {_describe(sizes, config)}; confirm=true removes them")
        return
    removed: dict[Path, int] = {}
    for run in found:
        sizes = _sizes(paths.get(run.folder, ()))
        try:
            if sizes:
                with lock_run(run.folder):
                    if read_run(run.folder).record != run.record:  # resumed in the meantime
                        continue
                    if remove_runs and inner_runs(run.folder):  # kept, or started in the meantime
                        continue
                    for path in sizes:
                        if path.is_dir():
                            shutil.rmtree(path.resolve())  # what a link points to
                        path.unlink(missing_ok=True)
                    removed |= sizes
        except RunLocked as error:
            print(f"kept: {error}")
    print(f"removed {_describe(removed, config)}")


def _reason_to_keep(run: "Run", removed: Iterable[Path]) -> str | None:
    """Return why a run cannot be removed together with the folders in `removed`; None if it can."""
    from emotion.checkpoints.locate import BEST_CHECKPOINT
    from emotion.records.run_folder import inner_runs
    from emotion.records.run_record import RECORD, RunRecord

    is_damaged = run.record == RunRecord() and (run.folder / RECORD).exists()
    if is_damaged and (run.folder / BEST_CHECKPOINT).exists():
        return run.error
    if inner := inner_runs(run.folder):
        resolved = {folder.resolve() for folder in removed}
        if kept := [str(folder) for folder in inner if folder.resolve() not in resolved]:
            return f"{run.folder} contains {counted(len(kept), 'other run')}, not selected:{listing(kept, 5)}"
    return None


def _sizes(paths: Iterable[Path]) -> dict[Path, int]:
    """Return the bytes of each folder and file that exists."""
    from emotion.records.run_folder import folder_size

    return {path: folder_size(path) if path.is_dir() else path.stat().st_size for path in paths if path.exists()}


def _describe(sizes: Mapping[Path, int], config: RunsConfig) -> str:
    """Return the number and the size of runs or checkpoints, such as "2 checkpoints, 4.0 MB"."""
    return f"{counted(len(sizes), str(config.remove).removesuffix('s'))}, {format_size(sum(sizes.values()))}"


@verb("runs", positional="runs", uses_torch=True)
def main(cfg: DictConfig) -> None:
    """List, sort and remove runs."""
    runs(cfg)


if __name__ == "__main__":
    main()
