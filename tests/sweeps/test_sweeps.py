"""Sweeps: many runs from one command; no run stops another, none is repeated."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from emotion.callbacks.model_summary import print_once
from emotion.compare import compare
from emotion.config.compose import CONF, compose
from emotion.errors import UserError
from emotion.records.recipe import recipe
from emotion.records.run_folder import ERROR_FILE, LOCK, read_run
from emotion.records.run_record import RunRecord
from emotion.sweeps.job import reserve_device
from emotion.sweeps.sweep import Sweep, check_folder, parse_command_line, write_sweep_file
from emotion.train import dispatch, train
from tests.conftest import options, record_of, signal_at
from tests.processes import CompletedVerb, run_verb
from tests.sweeps.conftest import only
from tests.test_cli import SMALL

Run = Callable[..., CompletedVerb]
Config = Callable[..., DictConfig]


def parse(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Sweep:
    monkeypatch.setattr(sys, "argv", ["emotion.train", *arguments])
    sweep = parse_command_line()
    assert sweep
    return sweep


def test_a_sweep_ends_with_a_ranking_and_is_not_repeated(
    sweep: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "sweep=seeds", "seed=0,1", "name=pair"
    print_once.cache_clear()
    done = sweep(*command)
    assert done.status == 0, done.err
    assert done.err.startswith("reading the sweep ...\n")
    assert len(re.findall(r"^layer +type", done.out, re.MULTILINE)) == 1
    assert "2 runs: 2 finished" in done.out
    folder = only("outputs/pair/*")
    assert sorted(path.name for path in folder.glob("seed=*")) == ["seed=0", "seed=1"]
    rows = (folder / "ranking.csv").read_text().splitlines()
    scores = [float(row.split(",")[2].split(" ")[0].strip('"')) for row in rows[1:]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 2

    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.suffix in (".ckpt", ".json", ".csv")}
    again = sweep(*command)
    assert again.out.count("nothing to do") == 2
    assert only("outputs/pair/*") == folder
    assert {path: path.read_bytes() for path in before} == before
    assert done.out.split("ranked by")[1] == again.out.split("ranked by")[1]
    assert parse(monkeypatch, *command, "loss=focal").folder != folder

    compare(compose("compare", "runs=outputs/pair"), Path("out"))
    printed = capsys.readouterr().out
    assert "ranked by the monitored score" in printed
    assert "val/acc" in Path("out/comparison.md").read_text()


def test_without_fer2013_the_runs_of_a_sweep_take_the_short_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [override for override in SMALL if not override.startswith(("data", "batch_size", "trainer.max_epochs"))]
    few = [f"data.fallback.{name}=4" for name in ("training", "public_test", "private_test")]
    monkeypatch.setattr(sys, "argv", ["emotion.train", "-m", *small, *few, "seed=0,1", "trainer.max_epochs=1"])
    with pytest.raises(SystemExit, match="0"):
        dispatch()
    assert capsys.readouterr().out.count("The settings are those of experiment=first_run") == 1
    records = [RunRecord.read(path) for path in Path("outputs/v4_attention").glob("*/seed=*")]
    assert [record.config["batch_size"] for record in records if record] == [32, 32]


def test_a_run_that_fails_does_not_stop_the_others_and_is_repeated(sweep: Run) -> None:
    command = "-m", "model.weights=random,nowhere.pth,run/best.pth", "name=lost"
    done = sweep(*command)
    assert done.status == 1
    assert "3 runs: 1 finished, 2 failed" in done.out.replace("2 failed, 1 finished", "1 finished, 2 failed")
    assert "nowhere.pth" in done.err
    assert "Traceback" not in done.err
    failed = only("outputs/lost/*/model.weights=nowhere.pth")
    assert "nowhere.pth" in (failed / ERROR_FILE).read_text()
    assert read_run(failed).state == "failed"
    assert "The same command runs the missing ones." in done.out
    again = sweep(*command)
    assert again.out.count("nothing to do") == 1
    assert again.status == 1
    (only("outputs/lost/*/model.weights=random") / "record.json").write_text("{")
    damaged = sweep(*command)
    assert "3 runs: 3 failed" in damaged.out
    assert "model.weights=random failed: outputs/lost/" in damaged.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=0,abc"], "seed=abc: expected a number, such as 0."),
        (["seed=0,1", "batch_size=4,0"], "batch_size=0: expected an integer of at least 1."),
        (["seed=range(0,3)", "optimizer.lr=-1"], "optimizer.lr=-1: expected a number of at least 0."),
        (["loss=focal,ldam", "loss.label_smoothing=0,-1"], "loss.label_smoothing=-1: expected a number from 0 to 1."),
        (["sweep=learning_rate", "trainer.devices=true"], "trainer.devices=True: expected auto, a number of devices"),
        (["augment=glob(*)", "seed=1,-1"], "seed=-1: expected an integer from 0 to"),
        (["seed=range(3,3)"], "seed=range(3,3) has no value to try; expected some, as in KEY=A,B."),
        (["sweep=tpe", "model=glob(mynet*)"], "model=glob(mynet*) has no value to try"),
    ],
)
def test_every_value_is_checked_before_the_first_run(arguments: list[str], message: str, sweep: Run) -> None:
    done = sweep("-m", *arguments)
    assert done.status == 2
    assert f"error: {message}" in done.err
    assert not Path("outputs").exists()


@pytest.mark.parametrize("command", [("-m", "seed=1"), ("sweep=seeds", "seed=1"), ("-m", "seed=1,1")])
def test_a_sweep_of_one_value_is_complete_after_one_run(command: tuple[str, ...], sweep: Run) -> None:
    done = sweep(*command, "hydra.sweep.dir=one")
    assert done.status == 0, done.out
    assert "sweep of 1 run in one" in done.out
    assert "sweep one: 1 run: 1 finished" in done.out
    assert only("one/ranking.csv").read_text().splitlines()[1].startswith("1,one")
    again = sweep(*command, "hydra.sweep.dir=./one/")
    assert again.status == 0, again.err


def test_glob_selects_from_the_folders_of_the_search_path(sweep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("augment/noise", "sweep/noises"):
        Path("mine", name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(CONF / "augment/none.yaml", "mine/augment/noise.yaml")
    text = (CONF / "sweep/augmentation.yaml").read_text()
    Path("mine/sweep/noises.yaml").write_text(text.replace("none,rotate_flip,basic,full,strong", "glob(no*)"))
    searched = "hydra.searchpath=[file://mine]"
    done = sweep("-m", searched, "augment=glob(no*)", "hydra.sweep.dir=given")
    assert done.status == 0, done.err
    assert "2 runs: 2 finished" in done.out
    assert sorted(path.name for path in Path("given").glob("augment=*")) == ["augment=noise", "augment=none"]
    done = sweep("sweep=noises", searched, "hydra.sweep.dir=configured")
    assert "2 runs: 2 finished" in done.out
    assert "error: model=glob(mynet*) has no value to try" in sweep("-m", searched, "model=glob(mynet*)").err
    search = parse(monkeypatch, "sweep=tpe", searched, "augment=glob(no*)")
    assert search.study
    assert "augment=choice(noise,none)" in search.study.study.space


@pytest.mark.hard
def test_a_stopped_sweep_is_resumed(sweep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "-m", "seed=0,1,2", "name=stopped", "batch_size=4"
    with monkeypatch.context() as patch:
        signal_at(patch, "training_step", 24, signal.SIGTERM)
        done = sweep(*command)
    assert done.status == 143
    assert "The same command resumes the sweep." in done.err
    folder = only("outputs/stopped/*")
    assert [read_run(folder / f"seed={seed}").state for seed in range(3)] == ["finished", "stopped", "empty"]
    again = sweep(*command)
    assert again.status == 0, again.err
    assert [len(record_of(folder / f"seed={seed}").resumed) for seed in range(3)] == [0, 1, 0]


def test_a_mistake_before_the_first_run_leaves_no_files(sweep: Run) -> None:
    done = sweep("-m", "seed=0,1", "model=v5")
    assert done.status == 2
    assert "model=v5" in done.err or "model/v5" in done.err
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("argument", "package"),
    [
        ("sweep=tpe", "optuna"),
        ("hydra/launcher=joblib", "hydra_plugins.hydra_joblib_launcher"),
        ("hydra/launcher=submitit_local", "hydra_plugins.hydra_submitit_launcher"),
    ],
)
def test_a_missing_package_names_the_extra(
    argument: str, package: str, sweep: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    done = sweep(argument)
    assert done.status == 2
    assert re.search(rf"needs {package}\S*, which is not installed: pip install 'emotion\[sweep\]'\.", done.err)
    assert not Path("outputs").exists()


@pytest.mark.parametrize("choice", options("sweep"))
def test_every_sweep_has_its_number_of_runs_and_folder(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = parse(monkeypatch, f"sweep={choice}", "batch_size=8")
    sizes = {"seeds": 3, "learning_rate": 5, "augmentation": 5, "models": 9, "tpe": 20}
    assert sweep.size == sizes.get(choice, sweep.size) > 1
    assert not sweep.is_resumed
    has_models = "model" in OmegaConf.load(CONF / f"sweep/{choice}.yaml").hydra.sweeper.params
    assert str(sweep.folder).startswith("outputs/sweep/" if has_models else "outputs/v4_attention/")


def test_a_sweep_is_found_again_below_a_name_with_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = parse(monkeypatch, "-m", "name=team/baseline", "seed=0,1")
    assert str(sweep.folder).startswith("outputs/team/baseline/2")
    write_sweep_file(sweep)
    again = parse(monkeypatch, "-m", "name=team/baseline", "seed=0,1")
    assert (again.folder, again.is_resumed) == (sweep.folder, True)


def test_the_launcher_does_not_change_the_identity_of_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = parse(monkeypatch, "-m", "seed=0,1")
    parallel = parse(monkeypatch, "-m", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert plain.overrides == parallel.overrides


def test_a_sweep_may_be_resumed_with_moved_data_and_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    def sweep(*arguments: str) -> Sweep:
        return parse(monkeypatch, "-m", "experiment=distill", "data=synthetic", "hydra.sweep.dir=s", *arguments)

    write_sweep_file(sweep("seed=0,1", "distillation.teacher=a", "data_dir=a", "cache_dir=a"))
    check_folder(sweep("seed=0,1", "distillation.teacher=b", "data_dir=b"))
    for other in (["seed=0,1,2"], ["seed=0,1", "batch_size=8"], ["seed=0,1", "distillation.teacher=a,b"]):
        with pytest.raises(UserError, match="s contains another sweep"):
            check_folder(sweep(*other))


@pytest.mark.hard
def test_parallel_runs_write_their_own_output() -> None:
    command = [*SMALL, "seed=0,1", "model.weights=random,nowhere.pth", "name=joblib"]
    command += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    # not with run_verb: in a forked process joblib's workers keep it alive for five minutes
    done = subprocess.run([sys.executable, "-m", "emotion.train", "-m", *command], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "4 runs: " in done.stdout
    assert "2 finished" in done.stdout
    assert "2 failed" in done.stdout
    assert "Epoch" not in done.stdout
    for path in Path("outputs/joblib").glob("*/model.weights=random*"):
        assert "next: python -m emotion.evaluate" in (path / "output.txt").read_text()


@pytest.mark.hard
def test_processes_of_one_sweep_share_its_runs() -> None:
    """Two start the same search at once; a third resumes it after one is killed."""
    command = ["sweep=tpe", *SMALL, "study.n_trials=4", "trainer.max_epochs=4", "hydra.sweep.dir=s"]
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "emotion.train", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(2)
    ]
    while not list(Path("s").glob("*/metrics.csv")):
        assert all(process.poll() is None for process in both)
    both[0].kill()
    for process in both:
        process.wait(120)
    third = run_verb("train", *command)
    assert third.status == 0, third.err
    assert "4 runs: 4 finished" in third.out
    import optuna

    (study,) = optuna.get_all_study_summaries("sqlite:///s/study.db")
    assert study.n_trials == 4


@pytest.mark.hard
def test_runs_of_a_sweep_can_have_two_processes() -> None:
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "batch_size=8", "trainer.max_epochs=2"]
    small = [override for override in SMALL if not override.startswith(("batch_size", "trainer."))]
    for index, runs in enumerate(
        (["-m", "seed=0,1"], ["sweep=tpe", "study.n_trials=2", "study.pruner.n_startup_trials=0"])
    ):
        done = run_verb("train", *runs, *small, *two, f"hydra.sweep.dir=sweep{index}")
        assert done.status == 0, done.out + done.err
        assert "2 runs: " in done.out
    assert len(list(Path().glob("*/*/record.json"))) == 4
    assert not Path("outputs").exists()


def test_a_locked_folder_is_refused(small_config: Config) -> None:
    Path("run").mkdir()
    with FileLock(Path("run", LOCK)), pytest.raises(UserError, match="run is in use by"):
        train(small_config(), Path("run"))


def test_a_run_is_not_overwritten(small_run: Callable[..., Path], small_config: Config) -> None:
    run = small_run(Path("run"), "trainer.max_epochs=1")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"run already contains a run\. Resume it with resume=run"):
        train(small_config("trainer.max_epochs=1"), run)
    with pytest.raises(UserError, match="run contains a run with another loss, batch_size, seed"):
        train(small_config("trainer.max_epochs=1", "resume=auto", "seed=1", "loss=focal", "batch_size=8"), run)
    score = train(small_config("trainer.max_epochs=1", "resume=auto"), run)
    assert score == record_of(run).best["score"]
    assert {path: path.read_bytes() for path in before} == before


def test_slurm_requeues_a_run(sweep: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """tests/slurm runs the real scontrol; this one writes its arguments to a file."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {shlex.quote(str(tmp_path / "arguments.txt"))}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    command = "resume=auto", "hydra.run.dir=run", "batch_size=4"
    with monkeypatch.context() as patch:
        signal_at(patch, "training_step", 5, signal.SIGUSR1)
        assert sweep(*command).status == 128 + signal.SIGUSR1
    assert (tmp_path / "arguments.txt").read_text() == "requeue 7\n"
    assert read_run(Path("run")).state == "stopped"
    assert sweep(*command).status == 0
    assert len(record_of(Path("run")).resumed) == 1


def test_a_cluster_signal_is_passed_on_to_its_previous_handler(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As to submitit's, which saves the job and requeues it."""

    class Requeued(Exception):
        pass

    def handle(signum: int, frame: object) -> None:
        assert Path("run/checkpoints/last.ckpt").is_file()
        raise Requeued

    previous = signal.signal(signal.SIGUSR2, handle)
    try:
        with monkeypatch.context() as patch:
            signal_at(patch, "training_step", 2, signal.SIGUSR2)
            with pytest.raises(Requeued):
                train(small_config(), Path("run"))
    finally:
        signal.signal(signal.SIGUSR2, previous)


def test_parallel_runs_have_different_devices() -> None:
    folder = Path("sweep")
    with reserve_device(folder, 2) as first, reserve_device(folder, 2) as second, reserve_device(folder, 2) as third:
        assert (first, second, third) == ([0], [1], [1])  # more runs than devices share the last
    with reserve_device(folder, 2) as again:
        assert again == [0]


def test_the_device_does_not_change_the_recipe() -> None:
    configs = [
        OmegaConf.to_container(compose("train", "run_dir=x", "name=x", f"trainer.devices={devices}"), resolve=True)
        for devices in ("1", "[3]")
    ]
    assert recipe(configs[0]) == recipe(configs[1])  # type: ignore[arg-type]


@pytest.mark.hard
def test_a_killed_job_leaves_the_others() -> None:
    command = ["-m", *SMALL, "seed=0,1", "trainer.max_epochs=30", "data.training=60", "~callbacks.early_stopping"]
    command += ["hydra/launcher=submitit_local", "hydra.sweep.dir=s"]
    arguments = [sys.executable, "-m", "emotion.train", *command]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sweep:
        while not Path("s/seed=1/checkpoints/last.ckpt").is_file():
            assert sweep.poll() is None
            time.sleep(0.1)
        os.kill(int(Path("s/seed=1", LOCK).read_text().split()[1]), signal.SIGKILL)
        assert sweep.stdout
        output = sweep.stdout.read()
    assert sweep.returncode == 1
    assert "1 finished" in output
    assert "1 stopped" in output
    again = run_verb("train", *command)
    assert again.status == 0, again.out + again.err
    assert "2 runs: 2 finished" in again.out
    assert len(record_of(Path("s/seed=1")).resumed) == 1
