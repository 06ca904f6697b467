"""On a real Slurm with one node: a single run, a sweep, and a job that is requeued and resumes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from emotion.checkpoints.locate import LAST_CHECKPOINT
from emotion.loggers.csv_logger import read_metrics
from tests.slurm.cluster import ask, cluster, configure, state, unavailable, wait
from tests.test_cli import SMALL

pytestmark = pytest.mark.slurm

RUN = Path("run")
LONG = [*SMALL, "data.training=60", "trainer.max_epochs=16", "~callbacks.early_stopping"]

SWEEP = [
    "-m",
    *LONG,
    "hydra/launcher=submitit_slurm",
    "hydra.launcher.timeout_min=20",
    "hydra.launcher.cpus_per_task=1",
]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    if reason := unavailable():
        pytest.skip(reason)
    with cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


def emotion(slurm: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "emotion.train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | slurm, timeout=300)


def submitted(slurm: dict[str, str], *arguments: str, tasks: int = 1) -> str:
    """Submit a job with sbatch, as in the README."""
    train = f"srun --kill-on-bad-exit=1 {sys.executable} -m emotion.train {' '.join(map(repr, arguments))}"
    options = ["--requeue", "--signal=USR1@60", "--open-mode=append", f"--ntasks-per-node={tasks}", "--output=job.txt"]
    environment = os.environ | slurm | {"MASTER_ADDR": "127.0.0.1"}  # only Slurm knows the node by its name
    return ask(environment, "sbatch", "--parsable", *options, "--wrap", train).strip()


@contextmanager
def started(slurm: dict[str, str], arguments: list[str], run: str) -> Iterator["subprocess.Popen[str]"]:
    """A sweep whose run `run` has its first checkpoint."""
    command = [sys.executable, "-m", "emotion.train", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | slurm
    ) as sweep:
        assert wait(lambda: bool(list(Path().rglob(f"{run}/{LAST_CHECKPOINT}"))), 120)
        yield sweep


def record(run: Path) -> dict[str, object]:
    return json.loads((run / "record.json").read_text()) if (run / "record.json").is_file() else {}


def ended(slurm: dict[str, str], job: str) -> bool:
    return state(job, slurm) in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


def test_sbatch_runs_a_single_run(slurm: dict[str, str]) -> None:
    job = submitted(slurm, *SMALL, f"hydra.run.dir={RUN}")
    assert wait(lambda: ended(slurm, job), 120)
    assert state(job, slurm) == "COMPLETED", Path("job.txt").read_text()
    assert record(RUN)["scores"]


def test_two_tasks_of_a_job_are_one_run(slurm: dict[str, str]) -> None:
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "batch_size=8"]
    job = submitted(slurm, *[o for o in SMALL if o != "batch_size=16"], *two, f"hydra.run.dir={RUN}", tasks=2)
    assert wait(lambda: ended(slurm, job), 120)
    output = Path("job.txt").read_text()
    assert state(job, slurm) == "COMPLETED", output
    assert output.count("scores, figures and checkpoints: run\n") == 1


@pytest.mark.parametrize("by", ["signal before the end", "scontrol requeue"])
def test_a_stopped_job_resumes(by: str, slurm: dict[str, str]) -> None:
    job = submitted(slurm, *LONG, "resume=auto", f"hydra.run.dir={RUN}")
    assert wait((RUN / LAST_CHECKPOINT).is_file, 120), Path("job.txt").read_text()
    if by == "signal before the end":
        ask(os.environ | slurm, "scancel", "--signal=USR1", job)  # as --signal=USR1@60 sends a minute before the end
    else:
        ask(os.environ | slurm, "scontrol", "requeue", job)
    assert wait(lambda: bool(record(RUN).get("scores")), 240), Path("job.txt").read_text()
    assert wait(lambda: ended(slurm, job), 30)
    output = Path("job.txt").read_text()
    assert len(record(RUN)["resumed"]) == 1, output  # type: ignore[arg-type]
    assert sorted(read_metrics(RUN / "metrics.csv")) == list(range(1, 17))
    epochs = [int(number) for number in re.findall(r"^ +(\d+)/16 ", output, re.MULTILINE)]
    assert epochs == list(range(1, 17))  # no epoch is trained twice


def test_a_sweep_keeps_the_other_jobs_and_repeats_a_lost_one(slurm: dict[str, str]) -> None:
    command = [*SWEEP, "seed=0,1,2", "name=three"]
    with started(slurm, command, "seed=1") as sweep:
        (log,) = [path for path in Path().rglob("*_log.out") if "seed=1" in path.read_text()]
        (process,) = re.findall(r"process (\d+)", next(Path().rglob("seed=1/.lock")).read_text())
        os.kill(int(process), 9)
        assert sweep.stdout
        output = sweep.stdout.read()
    assert sweep.returncode == 1, output
    assert "3 runs: 2 finished, 1 stopped" in output
    assert log.is_file()
    again = emotion(slurm, *command)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "3 runs: 3 finished" in again.stdout
    (folder,) = Path("outputs/three").iterdir()
    assert [len(record(folder / f"seed={seed}").get("resumed", [])) for seed in range(3)] == [0, 1, 0]  # type: ignore[arg-type]


def test_a_preempted_job_of_a_sweep_resumes(slurm: dict[str, str]) -> None:
    command = [*SWEEP, "seed=3,4", "name=two"]
    with started(slurm, command, "seed=3") as sweep:
        (job,) = [path.parent.name for path in Path().rglob("*_log.out") if "seed=3" in path.read_text()]
        ask(os.environ | slurm, "scancel", "--signal=USR2", job)
        assert sweep.stdout
        output = sweep.stdout.read()
    assert sweep.returncode == 0, output
    (folder,) = Path("outputs/two").iterdir()
    assert len(record(folder / "seed=3")["resumed"]) == 1  # type: ignore[arg-type]
    assert "resumed" not in record(folder / "seed=4")


def test_two_tasks_of_a_sweeps_job_are_one_run(slurm: dict[str, str]) -> None:
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "batch_size=8", "hydra.sweep.dir=s"]
    small = [override for override in SMALL if override != "batch_size=16"]
    tasks = ["hydra/launcher=submitit_slurm", "hydra.launcher.tasks_per_node=2", "hydra.launcher.timeout_min=20"]
    tasks += ["hydra.launcher.cpus_per_task=1"]
    done = emotion(slurm | {"MASTER_ADDR": "127.0.0.1"}, "-m", *small, *two, *tasks, "seed=0,1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 runs: 2 finished" in done.stdout
    assert record(Path("s/seed=1"))["effective"]["processes"] == 2  # type: ignore[index]
    refused = emotion(slurm, "sweep=tpe", *small, *tasks)
    assert refused.returncode == 2
    assert "a search needs hydra.launcher.tasks_per_node=1" in refused.stderr


@pytest.mark.parametrize("failure", ["no answer", "no configuration"])
def test_an_unreachable_cluster_is_reported_in_one_message(failure: str, tmp_path: Path) -> None:
    if reason := unavailable():
        pytest.skip(reason)
    environment = configure(tmp_path) if failure == "no answer" else {"SLURM_CONF": "nowhere.conf"}
    done = emotion(environment, "-m", *SMALL, "seed=0,1", "hydra/launcher=submitit_slurm")
    assert done.returncode == 2
    announced, message = done.stderr.splitlines()
    assert announced == "reading the sweep ..."
    assert re.match(r"error: (the cluster does not answer: .*|SLURM_CONF=nowhere.conf)", message)
    assert not Path("outputs").exists()
