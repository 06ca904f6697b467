"""A real Slurm of one node, this machine, for the tests: its own munged, slurmctld and slurmd, all below one folder."""

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
"""Seconds between SIGTERM and SIGKILL for a job that is cancelled, requeued or out of time."""

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
"""A requeued job waits cred_expire seconds to begin again: 5 is the least, and below it Slurm takes its default of 120.
MinJobAge is for how long `scontrol show job` knows one that ended, MessageTimeout how long a command asks in vain."""

SACCT = """#!{python} -IS
import re, subprocess, sys
given = sys.argv[1:]
wanted = [i for at, option in enumerate(given[:-1]) if option in ("-j", "--jobs") for i in given[at + 1].split(",")]
rows = ["JobID|State|NodeList"]
for job in wanted:
    shown = subprocess.run(["scontrol", "-o", "show", "job", job], capture_output=True, text=True).stdout
    for line in shown.splitlines():
        field = dict(re.findall(r"(\\w+)=(\\S*)", line))
        part = field.get("ArrayTaskId")
        part = "[" + part + "]" if part and not part.isdigit() else part
        name = field["ArrayJobId"] + "_" + part if part else field["JobId"]
        rows.append("|".join([name, field["JobState"], field.get("NodeList", "")]))
print("\\n".join(rows))
"""
"""Slurm's own asks a database that is not there; this one answers `sacct -o JobID,State,NodeList --parsable2 -j ID`."""


def missing() -> str | None:
    """Why no Slurm can run here, or None where one can."""
    if os.geteuid():
        return "a Slurm of one's own needs root"
    lacking = [program for program in PROGRAMS if not shutil.which(program)]
    return f"{', '.join(lacking)} not installed: apt-get install slurm-wlm munge" if lacking else None


def configure(folder: Path) -> dict[str, str]:
    """Write slurm.conf and sacct below the folder; what commands need in their environment to find them.

    By itself it is a Slurm that does not answer: commands give up after 4 seconds.
    """
    for name in ("bin", "state", "spool"):
        (folder / name).mkdir()
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = {"slurmctld": one.getsockname()[1], "slurmd": other.getsockname()[1]}
    conf, sacct = folder / "slurm.conf", folder / "bin" / "sacct"
    conf.write_text(CONF.format(host=socket.gethostname(), folder=folder, kill_wait=KILL_WAIT, **ports))
    sacct.write_text(SACCT.format(python=sys.executable))
    sacct.chmod(0o755)
    return {"SLURM_CONF": str(conf), "PATH": f"{sacct.parent}:{os.environ['PATH']}"}


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Slurm runs, its node idle, with everything below the folder; what commands need in their environment.

    In the end all jobs are cancelled and the daemons stopped. Nothing outside the folder is written or stopped.
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
    """What a command of Slurm writes; nothing where it fails."""
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True).stdout


def state(job: str, env: dict[str, str]) -> str:
    """PENDING, RUNNING, COMPLETED, ... of a job, or of a part of an array such as 7_1; nothing for one unknown."""
    found = re.search(r"JobState=(\w+)", ask(env, "scontrol", "-o", "show", "job", job))
    return found.group(1) if found else ""


def wait(condition: Callable[[], object], seconds: float) -> bool:
    """Whether the condition came true in time."""
    end = time.monotonic() + seconds
    while not (came := bool(condition())) and time.monotonic() < end:
        time.sleep(0.1)
    return came


@contextmanager
def _daemon(folder: Path, *command: str) -> Iterator[None]:
    """Runs in a session of its own, so that after a Ctrl-C jobs can be cancelled; ends with us if we are killed."""
    ending = ("setpriv", "--pdeathsig", "TERM", *command)
    with (folder / f"{command[0]}.out").open("wb") as out:
        process = subprocess.Popen(ending, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
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
        ends = [f"{out.name}: {out.read_text()[-500:]}" for out in sorted(folder.glob("*.out"))]
        raise RuntimeError("\n".join(["Slurm does not start", *ends]))


def _cancel_all(env: dict[str, str]) -> None:
    ask(env, "scancel", "--partition=tests")
    wait(lambda: not ask(env, "squeue", "--noheader"), KILL_WAIT + 10)
