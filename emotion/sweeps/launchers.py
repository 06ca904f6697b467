"""A sweep whose jobs other processes or a cluster run: is it there, and what when it loses one."""

import contextlib
import os
import re
import subprocess
import time
from importlib import import_module
from pathlib import Path

from emotion.errors import UserError
from emotion.sweeps.sweep import Sweep

PACKAGES = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
}
JOBS = ".submitit"
PAUSE = 2.0  # seconds between two looks at what is still running
INSTALL = "pip install 'emotion[sweep]'"


def check(arguments: list[str], *, search: bool) -> None:
    """Whether the launcher that is asked for can be had.

    Raises:
        UserError: its package is missing, or Slurm is not there.
    """
    launcher = next((a.partition("=")[2] for a in arguments if a.startswith("hydra/launcher=")), "basic")
    if launcher not in PACKAGES:
        return  # Hydra's own, or one that it says what is wrong with
    try:
        import_module(PACKAGES[launcher])
    except ModuleNotFoundError as error:
        raise UserError(f"hydra/launcher={launcher} is not installed: {INSTALL}.") from error
    if search and any(re.fullmatch(r"hydra\.launcher\.tasks_per_node=([2-9]|\d\d+)", one) for one in arguments):
        raise UserError("a search has one task for each job: each would ask for a trial. Leave tasks_per_node at 1.")
    if launcher != "submitit_slurm":
        return
    conf = os.environ.get("SLURM_CONF")
    if conf and not Path(conf).is_file():  # for which sbatch would wait a minute
        raise UserError(f"SLURM_CONF names {conf}, which is not there; the cluster cannot be found without it.")
    try:
        subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, check=True, timeout=60)
    except FileNotFoundError as error:
        raise UserError("sinfo is not there: start the sweep where Slurm's commands are, on a login node.") from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise UserError(f"the cluster does not answer: {_said(error)}. Nothing was submitted.") from error


def outlive(error: Exception, sweep: Sweep, since: float) -> None:
    """Wait until the jobs are through that the launcher, which has lost one of them, does not wait for any more.

    Raises:
        UserError: it took none of them.
        Exception: `error`, where it is not about a lost job.
    """
    if type(error).__module__.startswith(("joblib.", "concurrent.")):
        print(f"a process was lost, and with it the runs after it: {error}", flush=True)
        return
    if not type(error).__module__.startswith("submitit."):
        raise error
    folder = sweep.folder / JOBS
    jobs = [path.name for path in folder.iterdir() if path.stat().st_mtime >= since] if folder.is_dir() else []
    if not any(re.fullmatch(r"\d+(_\d+)?", job) for job in jobs):
        raise UserError(f"the cluster took no job: {str(error).strip().splitlines()[-1]}") from error
    print(f"a job was lost: {str(error).strip().splitlines()[0]}; waiting for the others", flush=True)
    of_slurm = any(folder.glob("*/*_submission.sh"))
    while _queued(jobs) if of_slurm else any(_runs(int(job)) for job in jobs if job.isdigit()):
        time.sleep(PAUSE)


def _queued(jobs: list[str]) -> bool:
    """Whether Slurm has one of the jobs waiting or running."""
    queue = subprocess.run(["squeue", "--noheader", "--array", "--format=%i"], capture_output=True, text=True)
    return queue.returncode != 0 or bool(set(queue.stdout.split()) & set(jobs))


def _runs(process: int) -> bool:
    """Whether a process is there; a child of ours that has ended is taken note of first."""
    try:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process, os.WNOHANG)
        os.kill(process, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _said(error: subprocess.CalledProcessError | subprocess.TimeoutExpired) -> str:
    lines = str(error.stderr or error).strip().splitlines()
    return lines[-1] if lines else str(error)
