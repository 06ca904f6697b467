"""Run one job of a sweep: resume it if it was started before, and keep its failure from stopping the others."""

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

from emotion.cli import check_values, command_line, set_command_line
from emotion.errors import Stopped, UserError
from emotion.io.atomic import make_folder
from emotion.records.run_folder import RunLocked, lock_run, read_run, record_error
from emotion.reporting.text import format_duration
from emotion.runtime.distributed import is_rank_zero

OUTPUT = "output.txt"
Train = Callable[[DictConfig, Path], float]


def run_job(train: Train, cfg: DictConfig, run_dir: Path) -> float:
    """Train or resume the run, or return the score of a finished one; a job of a search is one of its trials.

    Parallel jobs write their output to output.txt in their folder. A failed run writes its error to error.txt for the
    report, and its score is nan.
    """
    if cfg.resume is None:
        cfg.resume = "auto"
    name, parallel = run_dir.name, _is_parallel()
    if not parallel:
        print(f"\n{HydraConfig.get().job.num + 1}: {name}", flush=True)
    try:
        rank_zero = is_rank_zero()
        output = _output_to(run_dir / OUTPUT) if parallel else nullcontext()
        lock, errors = (lock_run, record_error) if rank_zero else (nullcontext, nullcontext)
        with errors(run_dir), lock(run_dir), output, _single_run(run_dir):
            given = HydraConfig.get().overrides
            check_values("train", cfg, given.task, given.hydra)
            if cfg.preflight.run:
                raise UserError("debug=preflight checks one run before it starts; use it without -m and sweep=.")
            score = _run(train, cfg, run_dir)
    except Stopped:
        raise
    except RunLocked as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return math.nan
    except Exception as error:
        message = str(error) if isinstance(error, UserError) else "".join(traceback.format_exception(error))
        print(f"error: {name}: {message}", file=sys.stderr, flush=True)
        return math.nan
    if parallel:
        run = read_run(run_dir)
        print(f"{name}: {run.state}, {format_duration(run.record.fit_seconds)}", flush=True)
    return score


@contextmanager
def reserve_device(folder: Path, count: int) -> Iterator[list[int]]:
    """Yield the index of one of `count` accelerators that no other run of the sweep uses; the last if all are used."""
    make_folder(folder)
    for index in range(count):
        lock = FileLock(folder / f".device{index}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield [index]
        finally:
            lock.release()
        return
    yield [count - 1]


def _run(train: Train, cfg: DictConfig, run_dir: Path) -> float:
    """Train on a device of its own if jobs are parallel and there are several devices.

    In a search the training is a trial.
    """

    def train_on_device(cfg: DictConfig, run_dir: Path) -> float:
        spread = _is_parallel() and cfg.trainer.devices == 1 and cfg.trainer.accelerator != "cpu"
        count = torch.accelerator.device_count() if spread else 0
        if count < 2:
            return train(cfg, run_dir)
        with reserve_device(Path(HydraConfig.get().sweep.dir), count) as devices:
            cfg.trainer.devices = devices
            return train(cfg, run_dir)

    if not cfg.study:
        return train_on_device(cfg, run_dir)
    from emotion.sweeps.optuna_study import run_trial

    return run_trial(train_on_device, cfg, run_dir)


def _is_parallel() -> bool:
    launcher: str = HydraConfig.get().runtime.choices["hydra/launcher"]
    return launcher == "joblib"


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Write stdout and stderr to a file, as they would mix with those of other runs."""
    with path.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        yield


@contextmanager
def _single_run(run_dir: Path) -> Iterator[None]:
    """Provide the command line and environment of this run alone, with which Lightning starts its other processes.

    The environment and process group that Lightning sets up end with the run.
    """
    import torch.distributed

    previous, environment, run = command_line(), dict(os.environ), cast(DictConfig, HydraConfig.get().run)
    stored = ["--config-path", str((run_dir / ".hydra").absolute()), "--config-name", "config", "resume=auto"]
    set_command_line([*stored, "hydra/job_logging=none", "hydra/hydra_logging=none"])
    with read_write(run):
        run.dir = str(run_dir)  # Lightning reads it
    try:
        yield
    finally:
        set_command_line(previous)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        os.environ.clear()
        os.environ.update(environment)
