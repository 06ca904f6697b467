"""A real Slurm with this machine as its only node: munged, slurmctld and slurmd, with all files in one folder."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = (
    *("munged", "mungekey", "slurmctld", "slurmd", "setpriv"),
    *("sbatch", "srun", "scontrol", "scancel", "sinfo", "squeue"),
)
KILL_WAIT = 5
"""Seconds between SIGTERM and SIGKILL for a canceled, requeued or timed-out job."""

CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={slurmctld}
SlurmdPort={slurmd}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=1,sched_min_interval=0,bf_interval=1
SlurmdParameters=config_overrides
KillWait={kill_wait}
JobRequeue=1
MinJobAge=3600
MessageTimeout=5
ReturnToService=2
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=64000
PartitionName=tests Nodes=node Default=YES MaxTime=60 DefaultTime=10
"""
"""A requeued job waits cred_expire seconds before it starts: at least 5, below which Slurm uses its default of 120.
MinJobAge: how long `scontrol show job` lists a job that ended. MessageTimeout: how long a command waits."""

SACCT = """#!{python} -IS
import re, subprocess, sys
arguments = sys.argv[1:]
pairs = zip(arguments, arguments[1:])
jobs = [job for option, value in pairs if option in ("-j", "--jobs") for job in value.split(",")]
rows = ["JobID|State|NodeList"]
for job in jobs:
    output = subprocess.run(["scontrol", "-o", "show", "job", job], capture_output=True, text=True).stdout
    for line in output.splitlines():
        field = dict(re.findall(r"(\\w+)=(\\S*)", line))
        task = field.get("ArrayTaskId")
        task = "[" + task + "]" if task and not task.isdigit() else task
        name = field["ArrayJobId"] + "_" + task if task else field["JobId"]
        rows.append("|".join([name, field["JobState"], field.get("NodeList", "")]))
print("\\n".join(rows))
"""
"""Replaces Slurm's own, which needs a database; answers `sacct -o JobID,State,NodeList --parsable2 -j ID`."""


def unavailable() -> str | None:
    """Return why Slurm cannot run here, None if it can."""
    if os.geteuid():
        return "a private Slurm needs root"
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    return f"{', '.join(missing)} not installed: apt-get install slurm-wlm munge" if missing else None


def configure(folder: Path) -> dict[str, str]:
    """Write slurm.conf and sacct in the folder; return the environment variables with which commands find them.

    Without its daemons this Slurm does not answer: commands give up after 4 seconds.
    """
    for name in ("bin", "state", "spool"):
        (folder / name).mkdir()
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        ports = {"slurmctld": first.getsockname()[1], "slurmd": second.getsockname()[1]}
    conf, sacct = folder / "slurm.conf", folder / "bin" / "sacct"
    conf.write_text(CONF.format(host=socket.gethostname(), folder=folder, kill_wait=KILL_WAIT, **ports))
    sacct.write_text(SACCT.format(python=sys.executable))
    sacct.chmod(0o755)
    return {"SLURM_CONF": str(conf), "PATH": f"{sacct.parent}:{os.environ['PATH']}"}


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Run Slurm with all its files in the folder; yield the environment variables that commands need.

    At the end all jobs are canceled and the daemons stopped. Nothing outside the folder is written or stopped.
    """
    folder = folder.absolute()
    env = configure(folder)
    key, munge = folder / "munge.key", folder / "munge.socket"
    own = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed")]
    subprocess.run(["mungekey", f"--keyfile={key}", "--create"], check=True)
    with ExitStack() as stack:
        stack.enter_context(_daemon(folder, "munged", "--force", "--foreground", f"--socket={munge}", *own))
        _expect(munge.exists, 10, folder)
        stack.enter_context(_daemon(folder, "slurmctld", "-D", "-f", env["SLURM_CONF"]))
        stack.enter_context(_daemon(folder, "slurmd", "-D", "-f", env["SLURM_CONF"]))
        stack.callback(_cancel_all, env)
        _expect(lambda: ask(env, "sinfo", "--noheader", "--format=%T").strip() == "idle", 30, folder)
        yield env


def ask(env: dict[str, str], *command: str) -> str:
    """Return the output of a Slurm command; empty if it fails."""
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True).stdout


def state(job: str, env: dict[str, str]) -> str:
    """Return PENDING, RUNNING, COMPLETED, ... of a job, or of an array task such as 7_1; empty if it is unknown."""
    found = re.search(r"JobState=(\w+)", ask(env, "scontrol", "-o", "show", "job", job))
    return found.group(1) if found else ""


def wait(condition: Callable[[], object], seconds: float) -> bool:
    """Wait for the condition; return whether it became true in time."""
    end = time.monotonic() + seconds
    while not (result := bool(condition())) and time.monotonic() < end:
        time.sleep(0.1)
    return result


@contextmanager
def _daemon(folder: Path, *command: str) -> Iterator[None]:
    """Run a daemon in its own session, so that jobs can be canceled after Ctrl-C; it is killed with this process."""
    arguments = ("setpriv", "--pdeathsig", "TERM", *command)
    with (folder / f"{command[0]}.out").open("wb") as out:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _expect(condition: Callable[[], object], seconds: float, folder: Path) -> None:
    if not wait(condition, seconds):
        outputs = [f"{out.name}: {out.read_text()[-500:]}" for out in sorted(folder.glob("*.out"))]
        raise RuntimeError("\n".join(["Slurm does not start", *outputs]))


def _cancel_all(env: dict[str, str]) -> None:
    ask(env, "scancel", "--partition=tests")
    wait(lambda: not ask(env, "squeue", "--noheader"), KILL_WAIT + 10)
