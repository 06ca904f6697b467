"""Searches: Optuna chooses, Hydra composes, and whoever stops in the middle goes on with the same trial."""

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
from emotion.records.run_folder import read
from emotion.records.run_record import read_record
from emotion.sweeps.optuna_study import distributions
from tests.conftest import signal_at
from tests.processes import Ended
from tests.sweeps.conftest import only

Swept = Callable[..., Ended]
SEARCH = ("sweep=tpe", "study.startup=2", "trainer.max_epochs=2", "hydra.sweep.dir=search")

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
def test_a_search_space_is_written_as_hydra_writes_sweeps(line: str) -> None:
    (found,) = distributions([line]).values()
    assert found == SPACES[line]


@pytest.mark.parametrize("line", ["seed=1", "optimizer.lr=interval(2, 1)", "optimizer.lr=tag(log, interval(0, 1))"])
def test_a_search_space_that_leaves_nothing_to_try_is_refused(line: str) -> None:
    with pytest.raises(UserError, match=r"study.space: .*expected"):
        distributions([line])


def trials() -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="emotion", storage="sqlite:///search/study.db").get_trials()


def test_a_search_goes_on_with_more_trials_and_says_its_best(swept: Swept) -> None:
    first = swept(*SEARCH, "study.trials=3", "pruner@study.pruner=none")
    assert first.status == 0, first.err
    chosen = [trial.params for trial in trials()]
    ended = swept(*SEARCH, "study.trials=4", "pruner@study.pruner=none")
    assert ended.status == 0, ended.err
    assert "4 runs: 4 finished" in ended.out
    assert [trial.params for trial in trials()][:3] == chosen
    for picture in ("study_history.png",):
        assert Path("search", picture).is_file()
    line = next(one for one in ended.out.splitlines() if one.startswith("  python -m emotion.train"))
    best = max(trials(), key=lambda trial: trial.value or 0)
    cfg = compose("train", *shlex.split(line)[3:])
    assert cfg.optimizer.lr == best.params["optimizer.lr"]
    assert cfg.study is None
    for trial in range(4):
        assert (read_record(Path(f"search/study.trial={trial}")) or {})["scores"] == {}  # test was not read


@pytest.mark.hard
def test_a_trial_that_is_stopped_goes_on_with_what_it_tried(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    given = *SEARCH, "study.trials=3", "batch_size=4"
    with monkeypatch.context() as patch:
        signal_at(patch, "training_step", 60, signal.SIGTERM)
        assert swept(*given).status == 143
    states = [trial.state.name for trial in trials()]
    assert states == ["COMPLETE", "RUNNING"]
    tried = trials()[1].params
    assert swept(*given).status == 0
    assert [trial.state.name for trial in trials()] == ["COMPLETE"] * 3
    assert trials()[1].params == tried
    assert len((read_record(Path("search/study.trial=1")) or {})["resumed"]) == 1


@pytest.mark.hard
def test_a_search_is_the_same_whether_or_not_it_was_stopped(swept: Swept) -> None:
    swept(*SEARCH, "study.trials=4", "pruner@study.pruner=none")
    swept(*SEARCH[:-1], "hydra.sweep.dir=other", "study.trials=2", "pruner@study.pruner=none")
    swept(*SEARCH[:-1], "hydra.sweep.dir=other", "study.trials=4", "pruner@study.pruner=none")
    other = optuna.load_study(study_name="emotion", storage="sqlite:///other/study.db").get_trials()
    assert [(trial.params, trial.value) for trial in trials()] == [(trial.params, trial.value) for trial in other]


def test_a_run_that_falls_behind_is_pruned(swept: Swept, capsys: pytest.CaptureFixture[str]) -> None:
    """By a threshold that none reaches: after its first epoch."""
    pruner = ["pruner@study.pruner=none", "++study.pruner={_target_:optuna.pruners.ThresholdPruner,lower:2.0}"]
    ended = swept(*SEARCH, "study.trials=2", *pruner)
    assert ended.status == 0, ended.err
    assert "2 runs: 2 pruned" in ended.out
    assert [trial.state.name for trial in trials()] == ["PRUNED"] * 2
    run = read(only("search/study.trial=1"))
    assert run.state == "pruned"
    assert run.record["pruned"]["epoch"] == 0
    again = swept(*SEARCH, "study.trials=2", *pruner)
    assert "2 runs: 2 pruned" in again.out


def test_another_search_does_not_mix_with_a_study(swept: Swept) -> None:
    swept(*SEARCH, "study.trials=1")
    for other, said in (
        ("batch_size=4,8", "its space is"),
        ("loss.gamma=1", "its fixed is"),
        ("monitor={metric:val/loss,mode:min}", "its metric is val/acc, found val/loss"),
    ):
        further = ["loss=focal"] if "gamma" in other else []
        ended = swept(*SEARCH, "study.trials=1", other, *further)
        assert ended.status == 2
        assert "study of another search" in ended.err
        assert said in ended.err
    assert len(trials()) == 1


def test_a_study_that_cannot_be_opened_is_one_message(swept: Swept) -> None:
    ended = swept(*SEARCH, "study.trials=1", "study.storage=sqlite:///nowhere/at/all.db")
    assert ended.status == 2
    assert "study.storage: sqlite:///nowhere/at/all.db cannot be opened" in ended.err
    assert "Traceback" not in ended.err


def test_compare_ranks_trials_by_validation_alone(swept: Swept, capsys: pytest.CaptureFixture[str]) -> None:
    swept(*SEARCH, "study.trials=2", "pruner@study.pruner=none")
    assert compare(compose("compare", "runs=search"), Path("out")) == ([], [])
    said = capsys.readouterr().out
    assert "which read no test" in said
    assert "test accuracy" not in said
