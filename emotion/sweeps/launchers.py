"""Check the launcher of a sweep before it starts, and wait for its other jobs when one is lost."""

import contextlib
import os
import re
import subprocess
import time
from importlib import import_module
from pathlib import Path

from emotion.errors import UserError, first_line, missing_extra
from emotion.sweeps.sweep import Sweep

PACKAGES = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
}
JOBS = ".submitit"
POLL_SECONDS = 2.0


def require_launcher(arguments: list[str]) -> str:
    """Return the launcher's name; raises UserError if it is not installed."""
    launcher = next((a.partition("=")[2] for a in arguments if a.startswith("hydra/launcher=")), "basic")
    if launcher in PACKAGES:  # others are Hydra's own, or unknown, which Hydra reports
        try:
            import_module(PACKAGES[launcher])
        except ModuleNotFoundError as error:
            raise missing_extra(f"hydra/launcher={launcher}", error.name, "sweep") from error
    return launcher


def check_launcher(launcher: str, arguments: list[str], *, is_search: bool) -> None:
    """Check the settings of a launcher and, for Slurm, that the cluster answers.

    Raises:
        UserError: The cluster does not answer, or a search would have several tasks per job.
    """
    tasks_per_node = re.compile(r"hydra\.launcher\.tasks_per_node=([2-9]|\d\d+)")
    if launcher in PACKAGES and is_search and any(tasks_per_node.fullmatch(argument) for argument in arguments):
        raise UserError("a search needs hydra.launcher.tasks_per_node=1: with more, each task would start a trial.")
    if launcher != "submitit_slurm":
        return
    conf = os.environ.get("SLURM_CONF")
    if conf and not Path(conf).is_file():  # sbatch would wait a minute
        raise UserError(f"SLURM_CONF={conf} does not exist; the cluster cannot be found without it.")
    try:
        subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, check=True, timeout=60)
    except FileNotFoundError as error:
        raise UserError("sinfo was not found: start the sweep on a login node with Slurm's commands.") from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        lines = str(error.stderr or error).strip().splitlines() or [str(error)]
        raise UserError(f"the cluster does not answer: {lines[-1]}. Nothing was submitted.") from error


def wait_for_jobs(error: Exception, sweep: Sweep, since: float) -> None:
    """Wait for the other jobs after the launcher gave up because it lost one; raise `error` if it has another cause.

    Raises:
        UserError: The cluster accepted no job.
    """
    if type(error).__module__.startswith(("joblib.", "concurrent.")):
        print(f"a process was lost together with its remaining runs: {error}", flush=True)
        return
    if not type(error).__module__.startswith("submitit."):
        raise error
    folder = sweep.folder / JOBS
    jobs = [path.name for path in folder.iterdir() if path.stat().st_mtime >= since] if folder.is_dir() else []
    if not any(re.fullmatch(r"\d+(_\d+)?", job) for job in jobs):
        raise UserError(f"the cluster accepted no job: {str(error).strip().splitlines()[-1]}") from error
    print(f"a job was lost: {first_line(error)}; waiting for the others", flush=True)
    on_slurm = any(folder.glob("*/*_submission.sh"))
    while _is_queued(jobs) if on_slurm else any(_is_alive(int(job)) for job in jobs if job.isdigit()):
        time.sleep(POLL_SECONDS)


def _is_queued(jobs: list[str]) -> bool:
    """Return whether any of the jobs is pending or running in Slurm."""
    queue = subprocess.run(["squeue", "--noheader", "--array", "--format=%i"], capture_output=True, text=True)
    return queue.returncode != 0 or bool(set(queue.stdout.split()) & set(jobs))


def _is_alive(pid: int) -> bool:
    """Return whether a process is alive; a child of this process that has ended is reaped first."""
    try:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
