"""A run's folder: who works in it, and how far the run in it has come."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from emotion.checkpoints.locate import LAST_CHECKPOINT
from emotion.errors import UserError
from emotion.io import digests
from emotion.io.atomic import remove_partial
from emotion.records import run_record

CONFIG, LOCK, FAILED = Path(".hydra/config.yaml"), ".lock", "failed.txt"
PROBED = 1.0  # seconds that a lock may be held by somebody who only looks
STATES = ("finished", "pruned", "running", "failed", "stopped", "empty")


class InUse(UserError):
    """Another process works in the folder."""


class RunState(NamedTuple):
    """A run, however far it has come."""

    folder: Path
    record: dict[str, Any]  # empty where it has none yet
    state: str  # of STATES
    why: str = ""  # it failed


@contextlib.contextmanager
def alone_in(run_dir: Path) -> Iterator[None]:
    """Hold the folder for this process, which may ask again; a process that ends in any way holds it no longer.

    Raises:
        InUse: another process does.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = (run_dir / LOCK).absolute()
    lock = FileLock(path, is_singleton=True)
    try:
        lock.acquire(timeout=PROBED)
    except Timeout:
        who = "another process"
        with contextlib.suppress(FileNotFoundError):  # let go this very moment
            who = path.read_text().strip() or who
        raise InUse(f"{run_dir} is in use by {who}; wait, or stop it.") from None
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        remove_partial(run_dir, run_dir / CONFIG.parent, run_dir / LAST_CHECKPOINT.parent)
        yield
    finally:
        if lock.lock_counter == 1:  # ours alone: while it is held, nobody else can take what is removed
            path.unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):  # a refused run leaves no folder, any other is not empty
            run_dir.rmdir()


def keep_config(cfg: DictConfig, run_dir: Path) -> None:
    """Leave in the folder what the run is composed of, from which `resume=` composes it again."""
    kept = cfg.copy()
    kept.resume = None
    (run_dir / CONFIG).parent.mkdir(parents=True, exist_ok=True)
    digests.write_yaml(run_dir / CONFIG, OmegaConf.to_yaml(kept))


def read(folder: Path) -> RunState:
    """The run in a folder.

    Raises:
        UserError: its record is none.
    """
    record = run_record.read_record(folder) or {}
    failed = folder / FAILED
    if record.get("scores") is not None:
        return RunState(folder, record, "finished")
    if record.get("pruned"):
        return RunState(folder, record, "pruned")
    if _in_use(folder):
        return RunState(folder, record, "running")
    if failed.is_file():
        return RunState(folder, record, "failed", failed.read_text(encoding="utf-8").strip())
    return RunState(folder, record, "stopped" if record or (folder / LAST_CHECKPOINT).is_file() else "empty")


def below(root: Path) -> list[RunState]:
    """Every run below a folder, itself included, in the order of their names."""
    folders = {path.parent for path in root.rglob(run_record.RECORD)} | {path.parent for path in root.rglob(FAILED)}
    folders |= {path.parent.parent for path in root.rglob(str(CONFIG))}
    return [read(folder) for folder in sorted(folders)]


def _in_use(folder: Path) -> bool:
    path = (folder / LOCK).absolute()
    if not path.is_file():
        return False
    lock = FileLock(path, is_singleton=True)
    if lock.is_locked:  # by ourselves
        return True
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # not ours to lock
        return False
