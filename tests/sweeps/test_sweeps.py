"""Sweeps: many runs from one command, of which none stops another and none is run twice."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from emotion.compare import compare
from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.records.run_folder import FAILED, LOCK, read
from emotion.records.run_record import read_record, recipe
from emotion.sweeps.job import own_device
from emotion.sweeps.sweep import of_command_line
from emotion.train import train
from tests.conftest import options, signal_at
from tests.processes import Ended, typed
from tests.sweeps.conftest import only
from tests.test_cli import SMALL

Swept = Callable[..., Ended]


def record(folder: Path) -> dict[str, object]:
    return read_record(folder) or {}


def test_a_sweep_ends_with_its_ranking_by_validation(swept: Swept) -> None:
    ended = swept("sweep=seeds", "seed=0,1,2", "name=three", "trainer.max_epochs=1")
    assert ended.status == 0, ended.err
    assert "3 runs: 3 finished" in ended.out
    folder = only("outputs/three/*")
    assert sorted(path.name for path in folder.glob("seed=*")) == ["seed=0", "seed=1", "seed=2"]
    rows = (folder / "ranking.csv").read_text().splitlines()
    scores = [float(row.split(",")[2].split(" ")[0].strip('"')) for row in rows[1:]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3
    assert "ranked by validation" in ended.out


def test_the_same_command_again_runs_nothing_and_says_the_same(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    first = swept("-m", "seed=0,1", "name=pair")
    folder = only("outputs/pair/*")
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.suffix in (".ckpt", ".json", ".csv")}
    again = swept("-m", "seed=0,1", "name=pair")
    assert again.out.count("nothing to do") == 2
    assert only("outputs/pair/*") == folder
    assert {path: path.read_bytes() for path in before} == before
    assert first.out.split("ranked by")[1] == again.out.split("ranked by")[1]
    monkeypatch.setattr(sys, "argv", ["emotion.train", "-m", "seed=0,1", "name=pair", "loss=focal"])
    other = of_command_line()
    assert other
    assert other.folder != folder


def test_a_run_that_fails_stops_no_other_and_is_run_again(swept: Swept) -> None:
    given = "-m", "model.weights=random,nowhere.pth,run/best.pth", "name=lost"
    ended = swept(*given)
    assert ended.status == 1
    assert "3 runs: 1 finished, 2 failed" in ended.out.replace("2 failed, 1 finished", "1 finished, 2 failed")
    assert "nowhere.pth" in ended.err
    assert "Traceback" not in ended.err
    failed = only("outputs/lost/*/model.weights=nowhere.pth")
    assert "nowhere.pth" in (failed / FAILED).read_text()
    assert read(failed).state == "failed"
    assert "The same command runs what is missing" in ended.out
    again = swept(*given)
    assert again.out.count("nothing to do") == 1
    assert again.status == 1


@pytest.mark.hard
def test_a_sweep_that_is_stopped_goes_on_where_it_was(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    given = "-m", "seed=0,1,2", "name=stopped", "batch_size=4", "trainer.max_epochs=1"
    with monkeypatch.context() as patch:
        signal_at(patch, "training_step", 24, signal.SIGTERM)
        ended = swept(*given)
    assert ended.status == 143
    assert "The same command goes on with the sweep" in ended.err
    folder = only("outputs/stopped/*")
    assert [read(folder / f"seed={seed}").state for seed in range(3)] == ["finished", "stopped", "empty"]
    again = swept(*given)
    assert again.status == 0, again.err
    assert [len(record(folder / f"seed={seed}").get("resumed", [])) for seed in range(3)] == [0, 1, 0]  # type: ignore[arg-type]


def test_a_mistake_before_the_first_run_leaves_nothing(swept: Swept) -> None:
    ended = swept("-m", "seed=0,1", "model=v5")
    assert ended.status == 2
    assert "Could not find 'model/v5'" in ended.err
    assert not Path("outputs").exists()


@pytest.mark.parametrize("choice", options("sweep"))
def test_every_sweep_says_how_many_runs_it_is(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["emotion.train", f"sweep={choice}", "batch_size=8"])
    sweep = of_command_line()
    assert sweep
    runs = {"seeds": 3, "learning_rate": 5, "augmentation": 5, "systems": 9, "tpe": 20}
    assert sweep.size == runs[choice]
    assert not sweep.went_before
    several = "outputs/sweep/" if choice == "systems" else "outputs/v4_attention/"
    assert str(sweep.folder).startswith(several)


def test_who_launches_a_sweep_makes_it_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for launcher in ([], ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]):
        monkeypatch.setattr(sys, "argv", ["emotion.train", "-m", "seed=0,1", *launcher])
        sweep = of_command_line()
        assert sweep
        asked.append(sweep.asked)
    assert asked[0] == asked[1]


@pytest.mark.hard
def test_runs_beside_each_other_each_have_their_own_output() -> None:
    done = typed("train", "-m", *SMALL, "seed=0,1", "model.weights=random", "batch_size=4,0", "name=joblib",
                   "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")  # fmt: skip
    assert done.status == 1, done.err
    assert "4 runs: " in done.out
    assert "2 finished" in done.out
    assert "2 failed" in done.out
    assert "Epoch" not in done.out
    for path in Path("outputs/joblib").glob("*/batch_size=4*"):
        assert "wrote" in (path / "output.txt").read_text()


@pytest.mark.hard
def test_processes_of_one_sweep_do_no_run_twice() -> None:
    """Two people start the same search at once, and a third when one of them was killed."""
    given = [
        "sweep=tpe",
        *SMALL,
        "study.trials=4",
        "trainer.max_epochs=4",
        "hydra.sweep.dir=s",
    ]
    begin = [sys.executable, "-m", "emotion.train", *given]
    both = [subprocess.Popen(begin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    while not list(Path("s").glob("*/metrics.csv")):
        assert all(one.poll() is None for one in both)
    both[0].kill()
    for one in both:
        one.wait(120)
    third = typed("train", *given)
    assert third.status == 0, third.err
    assert "4 runs: 4 finished" in third.out
    import optuna

    (study,) = optuna.get_all_study_summaries("sqlite:///s/study.db")
    assert study.n_trials == 4


@pytest.mark.hard
def test_runs_of_a_sweep_may_be_of_two_processes_each() -> None:
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    few = [one for one in SMALL if not one.startswith(("batch_size", "trainer."))]
    for given in (["-m", "seed=0,1"], ["sweep=tpe", "study.trials=2", "study.pruner.n_startup_trials=0"]):
        done = typed(
            "train", *given, *few, *two, "batch_size=8", "trainer.max_epochs=2", f"hydra.sweep.dir=of{len(given)}"
        )
        assert done.status == 0, done.out + done.err
        assert "2 runs: " in done.out
    assert len(list(Path().glob("*/*/record.json"))) == 4
    assert not Path("outputs").exists()


def test_a_folder_in_use_is_refused(small_config: Callable[..., object]) -> None:
    Path("run").mkdir()
    with FileLock(Path("run", LOCK)), pytest.raises(UserError, match="run is in use by"):
        train(small_config(), Path("run"))  # type: ignore[arg-type]


def test_a_run_is_not_written_over(small_run: Callable[..., Path], small_config: Callable[..., object]) -> None:
    run = small_run(Path("run"), "trainer.max_epochs=1")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"run holds a run already\. Go on with it by resume=run"):
        train(small_config("trainer.max_epochs=1"), run)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="run holds a run with another loss, batch_size, seed; give another folder"):
        train(small_config("trainer.max_epochs=1", "resume=auto", "seed=1", "loss=focal", "batch_size=8"), run)  # type: ignore[arg-type]
    score = train(small_config("trainer.max_epochs=1", "resume=auto"), run)  # type: ignore[arg-type]
    assert score == record(run)["best"]["score"]  # type: ignore[index]
    assert {path: path.read_bytes() for path in before} == before


def test_compare_ranks_a_sweep(swept: Swept, capsys: pytest.CaptureFixture[str]) -> None:
    swept("-m", "seed=0,1", "name=pair")
    compare(compose("compare", "runs=outputs/pair"), Path("out"))
    said = capsys.readouterr().out
    assert "ranked by validation" in said
    assert "recipes of n seeds" in said
    assert "val/acc" in Path("out/comparison.md").read_text()


def test_a_cluster_puts_a_run_back_in_its_queue(swept: Swept, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Slurm's own scontrol is tried in tests/slurm; here it only notes what it is asked."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {shlex.quote(str(tmp_path / "asked.txt"))}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    given = "resume=auto", "hydra.run.dir=run", "batch_size=4", "trainer.max_epochs=2"
    with monkeypatch.context() as patch:
        signal_at(patch, "training_step", 5, signal.SIGUSR1)
        assert swept(*given).status == 128 + signal.SIGUSR1
    assert (tmp_path / "asked.txt").read_text() == "requeue 7\n"
    assert read(Path("run")).state == "stopped"
    assert swept(*given).status == 0
    assert len(json.loads(Path("run/record.json").read_text())["resumed"]) == 1


def test_whoever_listened_for_a_clusters_signal_hears_of_it(
    small_config: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As submitit does, which saves the job and puts it back in the queue."""

    class Requeued(Exception):
        pass

    def listen(signum: int, frame: object) -> None:
        assert Path("run/checkpoints/last.ckpt").is_file()
        raise Requeued

    former = signal.signal(signal.SIGUSR2, listen)
    try:
        with monkeypatch.context() as patch:
            signal_at(patch, "training_step", 2, signal.SIGUSR2)
            with pytest.raises(Requeued):
                train(small_config(), Path("run"))  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGUSR2, former)


def test_runs_beside_each_other_have_accelerators_of_their_own() -> None:
    folder = Path("sweep")
    with own_device(folder, 2) as first, own_device(folder, 2) as second, own_device(folder, 2) as third:
        assert (first, second, third) == ([0], [1], [1])  # more runs than accelerators share the last
    with own_device(folder, 2) as again:
        assert again == [0]


def test_which_accelerator_a_run_had_makes_no_other_recipe(small_run: Callable[..., Path]) -> None:
    config = record(small_run(Path("run"), "trainer.max_epochs=1"))["config"]
    assert isinstance(config, dict)
    assert recipe(config | {"trainer": config["trainer"] | {"devices": [3]}}) == recipe(config)


@pytest.mark.hard
def test_a_process_of_its_own_that_is_killed_leaves_the_others() -> None:
    given = ["-m", *SMALL, "seed=0,1", "trainer.max_epochs=30", "data.training=60", "~callbacks.early_stopping"]
    given += ["hydra/launcher=submitit_local", "hydra.sweep.dir=s"]
    command = [sys.executable, "-m", "emotion.train", *given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sweep:
        while not Path("s/seed=1/checkpoints/last.ckpt").is_file():
            assert sweep.poll() is None
            time.sleep(0.1)
        os.kill(int(Path("s/seed=1", LOCK).read_text().split()[1]), signal.SIGKILL)
        assert sweep.stdout
        said = sweep.stdout.read()
    assert sweep.returncode == 1
    assert "1 finished" in said
    assert "1 stopped" in said
    again = typed("train", *given)
    assert again.status == 0, again.out + again.err
    assert "2 runs: 2 finished" in again.out
    assert len(record(Path("s/seed=1"))["resumed"]) == 1  # type: ignore[arg-type]
