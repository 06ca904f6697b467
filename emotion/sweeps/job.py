"""A run as one of a sweep: it goes on where it was left, and what stops it stops no other."""

import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import cast

import torch
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, read_write

from emotion.errors import Stopped, UserError
from emotion.io.atomic import write_text
from emotion.records import run_folder
from emotion.reporting.text import duration
from emotion.runtime.distributed import is_first


def available(accelerator: str) -> int:
    """Accelerators that runs can be spread over."""
    return torch.accelerator.device_count() if accelerator != "cpu" else 0


@contextmanager
def own_device(folder: Path, count: int) -> Iterator[list[int]]:
    """The number of one of `count` accelerators that no other run of the sweep has, or the last if all are taken.

    A run that ends in any way gives it back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        lock = FileLock(folder / f".device{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield [number]
        finally:
            lock.release()
        return
    yield [count - 1]


OUTPUT = "output.txt"
Train = Callable[[DictConfig, Path], float]


def run(train: Train, cfg: DictConfig, run_dir: Path) -> float:
    """Train, or go on, or take the score of a run that is finished; a trial of a study is asked for first.

    Where several run beside each other, each writes what it says to output.txt in its folder. A run that fails leaves
    why in failed.txt, for the sweep's report, and has no score (nan).
    """
    if cfg.resume is None:
        cfg.resume = "auto"
    failed, name = run_dir / run_folder.FAILED, run_dir.name
    if not _parallel():
        print(f"\n{HydraConfig.get().job.num + 1}: {name}", flush=True)
    try:
        first = is_first()
        with run_folder.alone_in(run_dir) if first else nullcontext(), _aside(run_dir), _as_one_run(run_dir):
            if first:
                failed.unlink(missing_ok=True)
            if cfg.preflight.run:
                raise UserError("debug=preflight looks at one run, before it is begun; leave -m and sweep= away.")
            score = _trial(_alone(train), cfg, run_dir) if cfg.study else _alone(train)(cfg, run_dir)
    except Stopped:
        raise
    except run_folder.InUse as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return math.nan
    except Exception as error:
        said = str(error) if isinstance(error, UserError) else "".join(traceback.format_exception(error))
        print(f"error: {name}: {said}", file=sys.stderr, flush=True)
        if is_first():
            run_dir.mkdir(parents=True, exist_ok=True)  # an empty folder was let go
            write_text(failed, f"{said}\n")
        return math.nan
    if _parallel():
        found = run_folder.read(run_dir)
        print(f"{name}: {found.state}, {duration(found.record.get('fit_seconds', 0))}", flush=True)
    return score


def _alone(train: Train) -> Train:
    """On an accelerator that no other run has, where several run beside each other and the machine has several."""

    def train_alone(cfg: DictConfig, run_dir: Path) -> float:
        count = available(cfg.trainer.accelerator) if _parallel() and cfg.trainer.devices == 1 else 0
        if count < 2:
            return train(cfg, run_dir)
        with own_device(Path(HydraConfig.get().sweep.dir), count) as own:
            cfg.trainer.devices = own
            return train(cfg, run_dir)

    return train_alone


def _trial(train: Train, cfg: DictConfig, run_dir: Path) -> float:
    from emotion.sweeps.optuna_study import trained

    return trained(train, cfg, run_dir)


def _parallel() -> bool:
    launcher: str = HydraConfig.get().runtime.choices["hydra/launcher"]
    return launcher == "joblib"


@contextmanager
def _aside(run_dir: Path) -> Iterator[None]:
    """What is printed goes to a file, where it would mix with what other runs print."""
    if not _parallel():
        yield
        return
    with (run_dir / OUTPUT).open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        yield


@contextmanager
def _as_one_run(run_dir: Path) -> Iterator[None]:
    """The command line and surroundings of this run alone, by which Lightning starts its further processes.

    They end with the run, and the next one's are strangers to them.
    """
    import torch.distributed

    former, environment, run = sys.argv, dict(os.environ), cast(DictConfig, HydraConfig.get().run)
    stored = ["--config-path", str((run_dir / ".hydra").absolute()), "--config-name", "config", "resume=auto"]
    sys.argv = [former[0], *stored, "hydra/job_logging=none", "hydra/hydra_logging=none"]
    with read_write(run):
        run.dir = str(run_dir)  # Lightning asks for it
    try:
        yield
    finally:
        sys.argv = former
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        os.environ.clear()
        os.environ.update(environment)
