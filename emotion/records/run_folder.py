"""Folders of runs: lock one, read the state of the run in it, find runs."""

import contextlib
import json
import os
import re
import socket
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from emotion.checkpoints.locate import LAST_CHECKPOINT
from emotion.errors import Pruned, Stopped, UserError, counted, listing
from emotion.io.atomic import make_folder, remove_partial, write_text, writing
from emotion.io.folders import expand, walk
from emotion.records.run_record import RECORD, RunRecord

CONFIG, LOCK, ERROR_FILE = Path(".hydra/config.yaml"), ".lock", "error.txt"
ARCHIVE = Path("outputs/records")  # of the published results
LOCK_TIMEOUT = 1.0  # seconds; another process's `_is_locked` may hold the lock for a moment
STATES = ("finished", "pruned", "running", "failed", "stopped", "empty")


class RunLocked(UserError):
    """Another process uses the folder."""


class Run(NamedTuple):
    """A run in its folder."""

    folder: Path
    record: RunRecord  # empty if there is none yet
    state: str = "finished"  # one of `STATES`
    error: str = ""  # of a failed run


@contextlib.contextmanager
def lock_run(run_dir: Path) -> Iterator[None]:
    """Lock the folder for this process, which may lock it again. The lock ends with the process.

    Raises:
        RunLocked: Another process holds the lock.
    """
    make_folder(run_dir)
    path = (run_dir / LOCK).absolute()
    lock = FileLock(path, is_singleton=True)
    try:
        with writing(path):
            lock.acquire(timeout=LOCK_TIMEOUT)
    except Timeout:
        owner = "another process"
        with contextlib.suppress(FileNotFoundError):  # released at this moment
            owner = path.read_text().strip() or owner
        raise RunLocked(f"{run_dir} is in use by {owner}; wait for it or stop it.") from None
    try:
        with writing(path):
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        remove_partial(run_dir, run_dir / CONFIG.parent, run_dir / LAST_CHECKPOINT.parent)
        yield
    finally:
        if lock.lock_counter == 1:  # remove the file while the lock is held, so that no other process has locked it
            path.unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):  # remove the folder if the run wrote nothing to it
            run_dir.rmdir()


@contextlib.contextmanager
def record_error(run_dir: Path) -> Iterator[None]:
    """Write an error to error.txt, which marks a run as failed; stopped and pruned runs have none."""
    (run_dir / ERROR_FILE).unlink(missing_ok=True)
    try:
        yield
    except (Stopped, Pruned, RunLocked):
        raise
    except Exception as error:
        message = str(error) if isinstance(error, UserError) else "".join(traceback.format_exception(error))
        with contextlib.suppress(OSError):  # such as a full disk, which may be the error
            make_folder(run_dir)
            write_text(run_dir / ERROR_FILE, f"{message}\n")
        raise


def write_config(cfg: DictConfig, run_dir: Path) -> None:
    """Write the run's config, from which `resume=` composes it again."""
    config = cfg.copy()
    config.resume = None
    make_folder((run_dir / CONFIG).parent)
    write_text(run_dir / CONFIG, OmegaConf.to_yaml(config))


def read_run(folder: Path) -> Run:
    """Return the run in a folder; one whose record cannot be read is failed, without a record."""
    try:
        record = RunRecord.read(folder)
    except UserError as error:
        return Run(folder, RunRecord(), "failed", str(error))
    error_file = folder / ERROR_FILE
    if record and record.scores is not None:
        return Run(folder, record, "finished")
    if record and record.pruned:
        return Run(folder, record, "pruned")
    is_empty = record is None and not (folder / LAST_CHECKPOINT).is_file()
    record = record or RunRecord()
    if _is_locked(folder):
        return Run(folder, record, "running")
    if error_file.is_file():
        return Run(folder, record, "failed", error_file.read_text(encoding="utf-8").strip())
    return Run(folder, record, "empty" if is_empty else "stopped")


def find_runs(root: Path) -> list[Run]:
    """Return every run in or below a folder, sorted by folder; published ones only of a folder in `ARCHIVE`."""
    runs = _run_folders(root)
    return [read_run(folder) for folder in runs if _is_published(root) or not _is_published(folder)]


def inner_runs(folder: Path) -> list[Path]:
    """Return the folders of other runs inside a run's folder, published ones included; links are not followed."""
    return sorted(one for name, _, _ in os.walk(folder) if (one := Path(name)) != folder and _is_run(one))


def skipped_archive(root: Path) -> Path | None:
    """Return the folder of published runs below a folder, which `find_runs` skips; None if there is none."""
    folders = (root / ARCHIVE.name, root / ARCHIVE)
    found = (folder for folder in folders if folder.is_dir() and _is_published(folder) and not _is_published(root))
    return next(found, None)


def _run_folders(root: Path) -> list[Path]:
    return sorted(filter(_is_run, walk(root)))


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (RECORD, ERROR_FILE, CONFIG))


def _is_published(path: Path) -> bool:
    return f"/{ARCHIVE.as_posix()}/" in f"{path.absolute().as_posix()}/"


def find_finished(sources: Sequence[str]) -> list[Run]:
    """Return the finished runs in or below folders and patterns, without copies; print which runs are skipped.

    Published runs are those of `find_runs`.

    Raises:
        UserError: A source has no finished run, or a record lacks a field.
    """
    found: dict[str, Run] = {}
    for source in sources:
        folders = [folder for folder in map(Path, expand(source)) if folder.exists()]
        runs = [run for folder in folders for run in find_runs(folder)]
        finished = [run for run in runs if run.record.scores]
        archives = [archive for folder in folders if (archive := skipped_archive(folder))]
        if not finished:
            state = f"{len(runs)} unfinished" if runs else "none" if folders else "no such folder"
            state += "".join(f"; the published runs are in {archive}" for archive in archives)
            raise UserError(
                f"{source}: expected finished runs, whose {RECORD} holds scores; found {state}.{_list_errors(runs)}"
            )
        print_unfinished(source, [run for run in runs if not run.record.scores])
        for archive in archives:
            print(f"{source}: skipped the published runs; to include them, name {archive} as well", flush=True)
        for run in finished:
            if missing := run.record.missing_fields():
                raise UserError(f"{run.folder / RECORD} has no {', '.join(missing)}; another version wrote it.")
            found.setdefault(json.dumps(run.record.to_dict(), sort_keys=True), run)
    return list(found.values())


def print_unfinished(source: str, runs: Sequence[Run]) -> None:
    """Print how many unfinished runs of a folder or pattern are skipped, if any, and the errors of failed ones."""
    if runs:
        print(f"{source}: skipped {counted(len(runs), 'unfinished run')}{_list_errors(runs)}", flush=True)


def _list_errors(runs: Sequence[Run]) -> str:
    return listing([f"{run.folder}: {run.error.splitlines()[-1]}" for run in runs if run.error])


def display_names(runs: Sequence[Run]) -> list[str]:
    """Return the shortest distinct names: the runs' names, with their seeds, with their folders, or their paths."""
    choices = (
        [run.record.name for run in runs],
        [run.record.title for run in runs],
        [f"{run.record.name} {run.folder.name}" for run in runs],
    )
    return next((names for names in choices if len(set(names)) == len(runs)), [str(run.folder) for run in runs])


def group_names(groups: Sequence[Sequence[Run]], plain: Sequence[str], names: Mapping[int, str]) -> list[str]:
    """Return distinct names of groups of runs: `plain` ones, or what the names of a group's runs have in common.

    Without that, a group is named after its first run. `names` has the name of each run by its `id`.
    """
    own = [[names[id(run)] for run in group] for group in groups]
    choices = plain, [_shared_name(group) for group in own]
    several = [f"{group[0]} and {len(group) - 1} more" if len(group) > 1 else group[0] for group in own]
    return next((list(names) for names in choices if len(set(names)) == len(groups)), several)


def _shared_name(names: Sequence[str]) -> str:
    """Return the parts of the first name that all names have: of `sw a=1,seed=0` and `sw a=1,seed=1`, `sw a=1`."""
    others = [re.split("[ ,/]+", name) for name in names]
    parts = re.findall("[^ ,/]*[ ,/]*", names[0])
    return "".join(part for part in parts if all(part.rstrip(" ,/") in other for other in others)).rstrip(" ,/")


def folder_size(folder: Path) -> int:
    """Return the bytes of all files in a run's folder, without those of `inner_runs` and behind links."""
    inner = set(inner_runs(folder))
    files = (Path(name) / file for name, _, names in os.walk(folder) for file in names)
    return sum(file.lstat().st_size for file in files if inner.isdisjoint(file.parents))


def _is_locked(folder: Path) -> bool:
    path = (folder / LOCK).absolute()
    if not path.is_file():
        return False
    lock = FileLock(path, is_singleton=True)
    if lock.is_locked:  # by this process
        return True
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # no permission to lock it
        return False
