"""On a real Slurm of one node: a single run, a sweep, and a job that is put back in the queue and goes on."""

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
from tests.slurm.cluster import ask, cluster, configure, missing, state, wait
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
    if why := missing():
        pytest.skip(why)
    with cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


def emotion(slurm: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "emotion.train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | slurm, timeout=300)


def submitted(slurm: dict[str, str], *arguments: str, tasks: int = 1) -> str:
    """A job that sbatch took, as the README has it."""
    train = f"srun --kill-on-bad-exit=1 {sys.executable} -m emotion.train {' '.join(map(repr, arguments))}"
    options = ["--requeue", "--signal=USR1@60", "--open-mode=append", f"--ntasks-per-node={tasks}", "--output=job.txt"]
    environment = os.environ | slurm | {"MASTER_ADDR": "127.0.0.1"}  # the node's name is Slurm's alone
    return ask(environment, "sbatch", "--parsable", *options, "--wrap", train).strip()


@contextmanager
def begun(slurm: dict[str, str], asked: list[str], run: str) -> Iterator["subprocess.Popen[str]"]:
    """A sweep, of which one run has its first checkpoint."""
    command = [sys.executable, "-m", "emotion.train", *asked]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | slurm
    ) as sweep:
        assert wait(lambda: bool(list(Path().rglob(f"{run}/{LAST_CHECKPOINT}"))), 120)
        yield sweep


def record(run: Path) -> dict[str, object]:
    return json.loads((run / "record.json").read_text()) if (run / "record.json").is_file() else {}


def ended(slurm: dict[str, str], job: str) -> bool:
    return state(job, slurm) in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


def test_a_single_run_goes_through_sbatch(slurm: dict[str, str]) -> None:
    job = submitted(slurm, *SMALL, f"hydra.run.dir={RUN}")
    assert wait(lambda: ended(slurm, job), 120)
    assert state(job, slurm) == "COMPLETED", Path("job.txt").read_text()
    assert record(RUN)["scores"]


def test_two_tasks_are_one_run(slurm: dict[str, str]) -> None:
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "batch_size=8"]
    job = submitted(slurm, *[o for o in SMALL if o != "batch_size=16"], *two, f"hydra.run.dir={RUN}", tasks=2)
    assert wait(lambda: ended(slurm, job), 120)
    said = Path("job.txt").read_text()
    assert state(job, slurm) == "COMPLETED", said
    assert said.count("wrote run/record.json") == 1


@pytest.mark.parametrize("by", ["its end is near", "requeued from outside"])
def test_a_job_that_is_stopped_goes_on_where_it_was(by: str, slurm: dict[str, str]) -> None:
    job = submitted(slurm, *LONG, "resume=auto", f"hydra.run.dir={RUN}")
    assert wait((RUN / LAST_CHECKPOINT).is_file, 120), Path("job.txt").read_text()
    if by == "its end is near":
        ask(os.environ | slurm, "scancel", "--signal=USR1", job)  # what --signal=USR1@60 sends a minute before
    else:
        ask(os.environ | slurm, "scontrol", "requeue", job)
    assert wait(lambda: bool(record(RUN).get("scores")), 240), Path("job.txt").read_text()
    assert wait(lambda: ended(slurm, job), 30)
    said = Path("job.txt").read_text()
    assert len(record(RUN)["resumed"]) == 1, said  # type: ignore[arg-type]
    assert sorted(read_metrics(RUN / "metrics.csv")) == list(range(16))
    epochs = [int(number) for number in re.findall(r"^ +(\d+)/16 ", said, re.MULTILINE)]
    assert epochs == list(range(1, 17))  # none is trained twice


def test_a_sweep_that_loses_a_job_keeps_the_rest_and_runs_it_again(slurm: dict[str, str]) -> None:
    asked = [*SWEEP, "seed=0,1,2", "name=three"]
    with begun(slurm, asked, "seed=1") as sweep:
        (log,) = [path for path in Path().rglob("*_log.out") if "seed=1" in path.read_text()]
        (process,) = re.findall(r"process (\d+)", next(Path().rglob("seed=1/.lock")).read_text())
        os.kill(int(process), 9)
        assert sweep.stdout
        said = sweep.stdout.read()
    assert sweep.returncode == 1, said
    assert "3 runs: 2 finished, 1 stopped" in said
    assert log.is_file()
    again = emotion(slurm, *asked)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "3 runs: 3 finished" in again.stdout
    (folder,) = Path("outputs/three").iterdir()
    assert [len(record(folder / f"seed={seed}").get("resumed", [])) for seed in range(3)] == [0, 1, 0]  # type: ignore[arg-type]


def test_a_job_of_a_sweep_that_is_preempted_goes_on(slurm: dict[str, str]) -> None:
    asked = [*SWEEP, "seed=3,4", "name=two"]
    with begun(slurm, asked, "seed=3") as sweep:
        (job,) = [path.parent.name for path in Path().rglob("*_log.out") if "seed=3" in path.read_text()]
        ask(os.environ | slurm, "scancel", "--signal=USR2", job)
        assert sweep.stdout
        said = sweep.stdout.read()
    assert sweep.returncode == 0, said
    (folder,) = Path("outputs/two").iterdir()
    assert len(record(folder / "seed=3")["resumed"]) == 1  # type: ignore[arg-type]
    assert "resumed" not in record(folder / "seed=4")


def test_the_tasks_of_a_sweeps_job_are_one_run(slurm: dict[str, str]) -> None:
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "batch_size=8", "hydra.sweep.dir=s"]
    small = [one for one in SMALL if one != "batch_size=16"]
    tasks = ["hydra/launcher=submitit_slurm", "hydra.launcher.tasks_per_node=2", "hydra.launcher.timeout_min=20"]
    tasks += ["hydra.launcher.cpus_per_task=1"]
    done = emotion(slurm | {"MASTER_ADDR": "127.0.0.1"}, "-m", *small, *two, *tasks, "seed=0,1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 runs: 2 finished" in done.stdout
    assert record(Path("s/seed=1"))["effective"]["processes"] == 2  # type: ignore[index]
    refused = emotion(slurm, "sweep=tpe", *small, *tasks)
    assert refused.returncode == 2
    assert "a search has one task for each job" in refused.stderr


@pytest.mark.parametrize("why", ["no answer", "no configuration"])
def test_a_cluster_that_cannot_be_reached_is_one_message(why: str, tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    away = configure(tmp_path) if why == "no answer" else {"SLURM_CONF": "nowhere.conf"}
    done = emotion(away, "-m", *SMALL, "seed=0,1", "hydra/launcher=submitit_slurm")
    assert done.returncode == 2
    assert re.search(r"^error: (the cluster does not answer: .*|SLURM_CONF names nowhere.conf)", done.stderr)
    assert len(done.stderr.splitlines()) == 1
    assert not Path("outputs").exists()
