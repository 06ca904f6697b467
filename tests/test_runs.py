"""What has been run: listed, filtered, tagged, cleaned."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.records.query import conditions, tags
from emotion.records.run_folder import FAILED, LOCK
from emotion.records.run_record import read_record, write_record
from emotion.runs import quote, runs


@pytest.fixture
def four(small_run: Callable[..., Path]) -> None:
    """Two finished runs, better and worse, one that was stopped, one that failed."""
    first = small_run(Path("outputs/good"), "trainer.max_epochs=1")
    record = read_record(first) or {}
    for name, score, lr in (("good", 0.7, 1e-3), ("poor", 0.3, 1e-2)):
        config = record["config"] | {"optimizer": record["config"]["optimizer"] | {"lr": lr}, "name": name}
        Path("outputs", name, "checkpoints").mkdir(parents=True, exist_ok=True)
        Path("outputs", name, "checkpoints/last.ckpt").write_bytes(bytes(2_000_000))
        write_record(Path("outputs", name), record | {"config": config, "best": record["best"] | {"score": score}})
    Path("outputs/stopped").mkdir()
    write_record(Path("outputs/stopped"), {key: value for key, value in record.items() if key != "scores"})
    Path("outputs/failed").mkdir()
    Path("outputs/failed", FAILED).write_text("weights.pth is not there\n")


def found(*overrides: str) -> list[str]:
    return [run.folder.name for run in runs(compose("runs", *overrides))]


@pytest.mark.usefixtures("four")
def test_runs_are_listed_with_their_state(capsys: pytest.CaptureFixture[str]) -> None:
    assert found() == ["failed", "good", "poor", "stopped"]
    said = capsys.readouterr().out
    assert "4 of 4 runs" in said
    assert "val/acc 0.7000" in said
    assert "outputs/failed: weights.pth is not there" in said


FILTERS = {
    "state=finished": ["good", "poor"],
    "state=[failed,stopped]": ["failed", "stopped"],
    "name=go*": ["good"],
    "where='val>0.5'": ["good"],
    "where='val<=0.7 and optimizer.lr>0.005'": ["poor"],
    "where='batch_size=16 and val!=0.7'": ["poor", "stopped"],
    "where='model._target_=*V4Attention and mb>1'": ["good", "poor"],
    "where='test>=0 and epochs=1'": ["good", "poor"],
    "where='optimizer.lr>fast'": [],
    "tagged=kept": [],
}


@pytest.mark.usefixtures("four")
def test_runs_are_filtered() -> None:
    assert {condition: found(condition) for condition in FILTERS} == FILTERS
    assert found("sort=val", "state=finished") == ["good", "poor"]
    assert found("sort=mb")[-1] == "failed"


@pytest.mark.usefixtures("four")
def test_tags_are_put_on_and_taken_off() -> None:
    found("state=finished", "tag=[kept,best]")
    assert found("tagged=[kept,best]") == ["good", "poor"]
    found("name=poor", "untag=best")
    assert tags(Path("outputs/poor")) == ["kept"]
    assert found("tagged=best") == ["good"]


@pytest.mark.usefixtures("four")
def test_nothing_goes_that_was_not_said_twice(capsys: pytest.CaptureFixture[str]) -> None:
    found("state=[failed,stopped]", "remove=runs")
    assert "would remove 2 runs" in capsys.readouterr().out
    assert len(found()) == 4
    with pytest.raises(UserError, match="would take finished ones as well"):
        found("remove=runs", "sure=true")
    found("state=[failed,stopped]", "remove=runs", "sure=true")
    assert found() == ["good", "poor"]
    found("remove=checkpoints", "sure=true")
    assert "removed 2 checkpoints, 4.0 MB" in capsys.readouterr().out
    assert Path("outputs/good/checkpoints/best.ckpt").is_file()
    assert not Path("outputs/good/checkpoints/last.ckpt").exists()


@pytest.mark.usefixtures("four")
def test_a_run_in_use_is_not_removed() -> None:
    with FileLock(Path("outputs/stopped", LOCK)):
        assert found("state=running") == ["stopped"]
        found("state=[running,failed]", "remove=runs", "sure=true")
    assert not Path("outputs/failed").exists()
    assert Path("outputs/stopped/record.json").is_file()


WRONG = {
    "runs=nowhere": "nowhere is not there; expected folders",
    "state=good": "state=good: expected finished, pruned",
    "sort=beauty": "sort=beauty: expected folder, val",
    "remove=everything": "expected runs or checkpoints",
    "where='val is high'": "found 'val is high'; expected NAME and a value",
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.usefixtures("four")
def test_a_mistake_is_said(wrong: str) -> None:
    with pytest.raises(UserError, match=WRONG[wrong]):
        found(wrong)


def test_tags_that_are_none_are_said() -> None:
    Path("outputs/a").mkdir(parents=True)
    write_record(Path("outputs/a"), {"config": {"name": "a"}})
    Path("outputs/a/tags.json").write_text("[")
    with pytest.raises(UserError, match=r"tags.json holds no tags: .* Remove it"):
        found("tagged=x")


def test_a_condition_need_not_be_quoted_for_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["runs", "where=val>0.6 and seed=0", "where='val>1'", "state=failed"])
    quote("where")
    assert sys.argv[1:] == ["where='val>0.6 and seed=0'", "where='val>1'", "state=failed"]
    assert [tuple(one) for one in conditions("val>0.6 and seed=0")] == [("val", ">", 0.6), ("seed", "=", 0)]
