"""Searches: Optuna suggests, Hydra composes, and a stopped search resumes the same trial."""

import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from emotion.compare import compare
from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.records.run_folder import read_run
from emotion.sweeps.optuna_study import distributions
from tests.conftest import record_of, signal_at
from tests.processes import CompletedVerb
from tests.sweeps.conftest import only

Run = Callable[..., CompletedVerb]
SEARCH = ("sweep=tpe", "study.n_startup_trials=2", "hydra.sweep.dir=search")
NO_PRUNER = "pruner@study.pruner=none"

SPACES: dict[str, BaseDistribution] = {
    "optimizer.lr=tag(log, interval(1e-4, 1e-2))": FloatDistribution(1e-4, 1e-2, log=True),
    "loss.label_smoothing=interval(0, 0.2)": FloatDistribution(0, 0.2),
    "model.hidden=tag(int, log, interval(8, 512))": IntDistribution(8, 512, log=True),
    "batch_size=range(16, 80, 16)": IntDistribution(16, 64, step=16),
    "model.dropout=range(0, 0.4, 0.1)": FloatDistribution(0.0, 0.3, step=0.1),
    "augment=none,basic,strong": CategoricalDistribution(["none", "basic", "strong"]),
    "optimizer=choice(adam, sgd)": CategoricalDistribution(["adam", "sgd"]),
}


@pytest.mark.parametrize("line", SPACES)
def test_a_search_space_has_the_syntax_of_hydra_sweeps(line: str) -> None:
    assert list(distributions([line]).values()) == [SPACES[line]]


@pytest.mark.parametrize("line", ["seed=1", "optimizer.lr=interval(2, 1)", "optimizer.lr=tag(log, interval(0, 1))"])
def test_a_search_space_without_values_is_refused(line: str) -> None:
    with pytest.raises(UserError, match=r"study.space: .*expected"):
        distributions([line])


def trials(folder: str = "search") -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="emotion", storage=f"sqlite:///{folder}/study.db").get_trials()


def test_a_search_can_be_extended_reports_its_best_trial_and_is_ranked(
    sweep: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    first = sweep(*SEARCH, "study.n_trials=2", NO_PRUNER)
    assert first.status == 0, first.err
    suggested = [trial.params for trial in trials()]
    assert suggested[0] != suggested[1]
    done = sweep(*SEARCH, "study.n_trials=3", NO_PRUNER)
    assert done.status == 0, done.err
    assert "3 runs: 3 finished" in done.out
    assert [trial.params for trial in trials()][:2] == suggested
    assert trials()[2].params not in suggested
    assert Path("search/study_history.png").is_file()
    line = done.out.partition("To train it and evaluate it on test:\n")[2].splitlines()[0]
    best = max(trials(), key=lambda trial: trial.value or 0)
    cfg = compose("train", *shlex.split(line)[3:])
    assert cfg.optimizer.lr == best.params["optimizer.lr"]
    assert cfg.study is None
    for index in range(3):
        assert record_of(Path(f"search/study.trial={index}")).scores == {}  # no trial is evaluated on test
    assert compare(compose("compare", "runs=search"), Path("out")) == ([], [])
    printed = capsys.readouterr().out
    assert "ranked by the monitored score" in printed
    assert "test accuracy" not in printed
    Path("search/study.trial=2/record.json").unlink()
    Path("search/study.trial=2/error.txt").write_text("the disk was full\n")
    fewer = sweep(*SEARCH, "study.n_trials=2", NO_PRUNER)
    assert fewer.status == 0, fewer.out
    assert "3 runs: 2 finished, 1 failed" in fewer.out
    assert "The same command" not in fewer.out


def test_a_search_finds_the_choices_of_a_folder_of_configs(sweep: Run) -> None:
    Path("mine/augment").mkdir(parents=True)
    Path("mine/augment/mine.yaml").write_text("flip: {_target_: emotion.data.transforms.augment.Flip, p: 0.7}\n")
    search_path = "hydra.searchpath=[file://mine]"
    done = sweep(*SEARCH, "study.n_trials=1", NO_PRUNER, search_path, "augment=mine")
    assert done.status == 0, done.err
    assert record_of(Path("search/study.trial=0")).config["augment"]["flip"]["p"] == 0.7
    assert search_path in shlex.split(done.out.partition("on test:\n")[2].splitlines()[0])


@pytest.mark.hard
def test_a_stopped_trial_resumes_with_its_settings(sweep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    command = *SEARCH, "study.n_trials=3", "batch_size=4", "trainer.max_epochs=2"
    with monkeypatch.context() as patch:
        signal_at(patch, "training_step", 60, signal.SIGTERM)
        assert sweep(*command).status == 143
    assert [trial.state.name for trial in trials()] == ["COMPLETE", "RUNNING"]
    params = trials()[1].params
    assert sweep(*command).status == 0
    assert [trial.state.name for trial in trials()] == ["COMPLETE"] * 3
    assert trials()[1].params == params
    assert len(record_of(Path("search/study.trial=1")).resumed) == 1


@pytest.mark.hard
def test_an_extended_search_is_the_same_as_a_whole_one(sweep: Run) -> None:
    sweep(*SEARCH, "study.n_trials=4", NO_PRUNER)
    for number in (2, 4):
        sweep(*SEARCH[:-1], "hydra.sweep.dir=other", f"study.n_trials={number}", NO_PRUNER)
    results = [[(trial.params, trial.value) for trial in trials(folder)] for folder in ("search", "other")]
    assert results[0] == results[1]


def test_a_trial_below_the_threshold_is_pruned(sweep: Run) -> None:
    """The threshold is above every accuracy, so that all are pruned after their first epoch."""
    pruner = [NO_PRUNER, "++study.pruner={_target_:optuna.pruners.ThresholdPruner,lower:2.0}", "trainer.max_epochs=2"]
    done = sweep(*SEARCH, "study.n_trials=2", *pruner)
    assert done.status == 0, done.err
    assert "2 runs: 2 pruned" in done.out
    assert [trial.state.name for trial in trials()] == ["PRUNED"] * 2
    run = read_run(only("search/study.trial=1"))
    assert run.state == "pruned"
    assert run.record.pruned
    assert run.record.pruned["epoch"] == 1
    again = sweep(*SEARCH, "study.n_trials=2", *pruner)
    assert "2 runs: 2 pruned" in again.out


def test_a_study_is_not_mixed_with_another_search(sweep: Run) -> None:
    sweep(*SEARCH, "study.n_trials=1")
    for overrides, message in (
        (["batch_size=4,8"], "its space is"),
        (["loss=focal", "loss.gamma=1"], "its fixed is"),
        (["monitor={metric:val/loss,mode:min}"], "its metric is val/acc, found val/loss"),
    ):
        done = sweep(*SEARCH, "study.n_trials=1", *overrides)
        assert done.status == 2
        assert "belongs to another search" in done.err
        assert message in done.err
    assert len(trials()) == 1


def test_a_search_may_be_resumed_with_moved_data(sweep: Run) -> None:
    for folder in ("a", "b"):
        done = sweep(*SEARCH, "study.n_trials=1", f"data_dir={folder}", f"cache_dir={folder}")
        assert done.status == 0, done.err
    assert len(trials()) == 1


def test_a_database_belongs_to_one_folder(sweep: Run) -> None:
    command = (*SEARCH, "study.n_trials=1", NO_PRUNER, "study.storage=sqlite:///shared.db")
    assert sweep(*command).status == 0
    assert sweep(*command).status == 0
    done = sweep(*(argument.replace("dir=search", "dir=other") for argument in command))
    assert done.status == 2
    assert "shared.db belongs to the search in search; continue it there, hydra.sweep.dir=search" in done.err


def test_an_unusable_database_is_refused_in_one_message(sweep: Run) -> None:
    done = sweep(*SEARCH, "study.n_trials=1", "study.storage=sqlite:///nowhere/at/all.db")
    assert done.status == 2
    assert "study.storage: sqlite:///nowhere/at/all.db cannot be opened" in done.err
    assert "Traceback" not in done.err
