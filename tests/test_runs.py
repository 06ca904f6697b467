"""The runs verb: list, sort, remove."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.records.run_folder import ERROR_FILE, LOCK, find_finished, folder_size
from emotion.records.run_record import RunRecord
from emotion.runs import runs


@pytest.fixture(autouse=True)
def four_runs(small_run: Callable[..., Path]) -> None:
    """Two finished runs, `good` and `poor`, a stopped one and a failed one."""
    record = RunRecord.read(small_run(Path("outputs/good"), "trainer.max_epochs=1")) or RunRecord()
    config, best = record.config, record.best
    for name, score, lr in (("good", 0.7, 1e-3), ("poor", 0.3, 1e-2)):
        folder = Path("outputs", name)
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints/last.ckpt").write_bytes(bytes(2_000_000))
        record.config = config | {"optimizer": config["optimizer"] | {"lr": lr}, "name": name}
        record.best = best | {"score": score}
        record.write(folder)
    record.scores = None
    for name in ("stopped", "failed"):
        Path("outputs", name).mkdir()
    record.write(Path("outputs/stopped"))
    Path("outputs/failed", ERROR_FILE).write_text("weights.pth is not there\n")
    for age, name in enumerate(("failed", "good", "poor", "stopped")):
        os.utime(Path("outputs", name), (1e9 - age, 1e9 - age))


def listed(*overrides: str) -> list[str]:
    return [run.folder.name for run in runs(compose("runs", *overrides))]


def test_runs_are_listed_with_their_state(capsys: pytest.CaptureFixture[str]) -> None:
    assert listed() == ["failed", "good", "poor", "stopped"]
    printed, announced = capsys.readouterr()
    assert announced == "reading the runs in outputs ...\n"
    assert "4 of 4 runs" in printed
    assert "4 of 4 runs; score: val/acc" in printed
    assert " 0.7000 " in printed
    assert printed.splitlines()[1].split()[3] == "score"
    assert "* on SYNTHETIC faces" in printed
    assert "outputs/failed: weights.pth is not there" in printed


def test_csv_has_the_numbers_and_the_settings_that_differ() -> None:
    listed("state=finished", "csv=here/runs.csv")
    with Path("here/runs.csv").open(newline="") as file:
        good, poor = csv.DictReader(file)
    assert (good["run"], good["state"], good["metric"], good["score"]) == ("outputs/good", "finished", "val/acc", "0.7")
    assert (good["optimizer.lr"], poor["optimizer.lr"], good["epochs"]) == ("0.001", "0.01", "1")
    assert float(poor["mb"]) > 2
    assert "batch_size" not in good
    listed("csv=null")
    assert not Path("outputs/runs.csv").exists()


SELECTIONS = {
    "state=finished": ["good", "poor"],
    "state=[failed,stopped]": ["failed", "stopped"],
    "name=go*": ["good"],
    "name=nothing": [],
    "where='val/acc>0.5'": ["good"],
    "where='val/acc==0.3'": ["poor", "stopped"],
    "where='score=0.3'": ["poor", "stopped"],
    "where='optimizer.lr<=0.001'": ["good"],
    "where='state!=finished'": ["failed", "stopped"],
    "where=['test %>=0','MB>2','name==poor']": ["poor"],
}


def test_runs_are_selected_and_sorted() -> None:
    assert {override: listed(override) for override in SELECTIONS} == SELECTIONS
    assert listed("sort=score", "state=finished") == ["good", "poor"]
    assert listed("sort=val/acc", "state=finished") == ["good", "poor"]
    assert listed("sort=mb")[-1] == listed("sort=MB")[-1] == "failed"
    assert listed("sort=epochs")[-1] == "failed"
    os.utime("outputs/stopped")
    assert listed() == ["stopped", "failed", "good", "poor"]
    assert listed("sort=run") == ["failed", "good", "poor", "stopped"]


def test_published_runs_are_listed_if_their_folder_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("outputs/good", "outputs/records/published")
    hint = "The published runs are listed by: python -m emotion.runs outputs/records\n"
    for folder in ("outputs", ".", str(Path("outputs").absolute())):
        assert listed(f"runs={folder}") == ["failed", "good", "poor", "stopped"]
        assert hint.removesuffix("outputs/records\n") in capsys.readouterr().out
    assert listed("runs=outputs/records") == listed("runs=outputs/records/published") == ["published"]
    assert hint not in capsys.readouterr().out
    assert [run.folder.name for run in find_finished(["outputs"])] == ["good", "poor"]
    assert "outputs: skipped the published runs; to include them, name outputs/records" in capsys.readouterr().out
    assert len(find_finished(["outputs", "outputs/records/published"])) == 2  # it is a copy of `good`
    shutil.rmtree("outputs/good")
    shutil.rmtree("outputs/poor")
    with pytest.raises(UserError, match="found 2 unfinished; the published runs are in outputs/records"):
        find_finished(["outputs"])


def test_only_confirmed_removals_remove(capsys: pytest.CaptureFixture[str]) -> None:
    listed("state=[failed,stopped]", "remove=runs")
    assert "would remove 2 runs" in capsys.readouterr().out
    listed("state=failed", "remove=runs")
    assert "1 of 4 runs" in (printed := capsys.readouterr().out)
    assert "would remove 1 run, " in printed
    assert len(listed()) == 4
    with pytest.raises(UserError, match="would remove finished runs"):
        listed("remove=runs", "confirm=true")
    listed("state=[failed,stopped]", "remove=runs", "confirm=true")
    assert listed() == ["good", "poor"]
    listed("remove=checkpoints", "confirm=true")
    assert "removed 2 checkpoints, 4.0 MB" in capsys.readouterr().out
    assert Path("outputs/good/checkpoints/best.ckpt").is_file()
    assert not Path("outputs/good/checkpoints/last.ckpt").exists()


def test_a_run_that_contains_another_is_removed_only_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("outputs/good", "outputs/failed/again")
    for confirm in ("false", "true"):
        listed("state=failed", "remove=runs", f"confirm={confirm}")
        printed = capsys.readouterr().out
        assert "kept: outputs/failed contains 1 other run, not selected:\n  outputs/failed/again" in printed
        assert "remove 0 runs, " in printed.replace("removed", "remove")
    assert {run.folder.name for run in find_finished(["outputs/failed"])} == {"again"}
    Path("outputs/failed/again/record.json").unlink()
    Path("outputs/failed/again", ERROR_FILE).write_text("out of memory\n")
    with FileLock(Path("outputs/failed/again", LOCK)):
        listed("state=[failed,running]", "remove=runs", "confirm=true")
        assert "removed 0 runs" in capsys.readouterr().out
    listed("state=failed", "csv=runs.csv")
    with Path("runs.csv").open(newline="") as file:
        sizes = {row["run"]: float(row["mb"]) for row in csv.DictReader(file)}
    assert sizes["outputs/failed"] < 0.001 < sizes["outputs/failed/again"]
    listed("state=failed", "remove=runs", "confirm=true")
    assert "removed 2 runs" in capsys.readouterr().out
    assert listed("sort=run") == ["good", "poor", "stopped"]


@pytest.mark.parametrize("content", ["", '{"command": "pyt'])
def test_a_damaged_record_is_that_of_a_failed_run(content: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("outputs/poor/record.json").write_text(content)
    message = "outputs/poor: outputs/poor/record.json cannot be read as JSON"
    assert listed("state=failed", "sort=run") == ["failed", "poor"]
    assert message in capsys.readouterr().out
    assert [run.folder.name for run in find_finished(["outputs"])] == ["good"]
    assert message in capsys.readouterr().out
    with pytest.raises(UserError, match=rf"found 1 unfinished\.\n  {message}"):
        find_finished(["outputs/poor"])
    listed("state=failed", "remove=runs", "confirm=true")
    assert listed("sort=run") == ["good", "stopped"]


def test_a_run_with_a_checkpoint_and_a_damaged_record_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    Path("outputs/poor/record.json").write_text("{")
    Path("outputs/poor/checkpoints").mkdir(exist_ok=True)
    Path("outputs/poor/checkpoints/best.ckpt").touch()
    listed("state=failed", "remove=runs", "confirm=true")
    assert "kept: outputs/poor/record.json cannot be read as JSON" in capsys.readouterr().out
    assert listed("sort=run") == ["good", "poor", "stopped"]


def test_links_inside_a_run_do_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data").mkdir()
    Path("data/large").write_bytes(bytes(10**6))
    Path("outputs/failed/data").symlink_to(Path("data").absolute())
    Path("outputs/failed/teacher").symlink_to(Path("outputs/good").absolute())
    assert folder_size(Path("outputs/failed")) < 10**6
    listed("state=failed", "remove=runs", "confirm=true")
    assert not Path("outputs/failed").exists()
    assert Path("data/large").is_file()
    assert listed("sort=run") == ["good", "poor", "stopped"]


def test_runs_in_linked_folders_are_listed_and_removed() -> None:
    Path("moved").mkdir()
    shutil.move("outputs/poor", "moved/poor")
    shutil.move("outputs/failed", "moved/failed")
    Path("outputs/moved").symlink_to(Path("moved").absolute())
    Path("outputs/link").symlink_to("good")  # which is listed already
    Path("moved/cycle").symlink_to(Path("outputs").absolute())
    assert listed("sort=run") == ["good", "failed", "poor", "stopped"]
    assert [str(run.folder) for run in find_finished(["outputs"])] == ["outputs/good", "outputs/moved/poor"]
    Path("outputs/moved").unlink()
    Path("outputs/failed").symlink_to(Path("moved/failed").absolute())
    assert listed("state=failed", "remove=runs", "confirm=true") == ["failed"]
    assert not Path("outputs/failed").is_symlink()
    assert not Path("moved/failed").exists()


def test_a_pattern_stands_for_folders(capsys: pytest.CaptureFixture[str]) -> None:
    assert listed("runs='outputs/[gp]*'", "sort=run") == ["good", "poor"]
    assert "reading the runs in outputs/[gp]* ..." in capsys.readouterr().err
    with pytest.raises(UserError, match=r"outputs/x\* does not exist"):
        listed("runs='outputs/x*'")


def test_the_preview_and_the_result_of_a_removal_count_the_same_files(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("last", "previous"):
        Path(f"outputs/good/checkpoints/{name}.ckpt").write_bytes(bytes(1_000_000))
    for confirm, verb in (("false", "would remove"), ("true", "removed")):
        listed("name=good", "remove=checkpoints", f"confirm={confirm}")
        assert f"{verb} 2 checkpoints, 2.0 MB" in capsys.readouterr().out


def test_a_locked_run_is_neither_removed_nor_counted(capsys: pytest.CaptureFixture[str]) -> None:
    Path("outputs/good/checkpoints/last.ckpt").write_bytes(bytes(1_000_000))
    with FileLock(Path("outputs/poor", LOCK)):
        listed("remove=checkpoints", "confirm=true")
    assert "removed 1 checkpoint, 1.0 MB" in capsys.readouterr().out
    with FileLock(Path("outputs/stopped", LOCK)):
        assert listed("state=running") == ["stopped"]
        listed("state=[running,failed]", "remove=runs", "confirm=true")
    assert not Path("outputs/failed").exists()
    assert Path("outputs/stopped/record.json").is_file()


@pytest.mark.parametrize(
    ("override", "message"),
    {
        "runs=nowhere": "nowhere does not exist; expected folders",
        "state=good": "state=good: expected finished, pruned",
        "sort=beauty": "sort=beauty: expected newest, run, score",
        "where='nonsense>1'": "where=nonsense>1: no run has nonsense; did you mean",
        "where='optimizer.lrr>1'": "no run has optimizer.lrr; did you mean optimizer.lr",
        "where='model=simple_cnn'": "no run has model; did you mean name, model",
        "where='lr>1'": "no run has lr; did you mean optimizer.lr",
        "where='seed=abc'": "where=seed=abc: expected a number, as seed is in these runs, such as 0",
        "where='score>a word'": "expected a number, as score is in these runs, such as 0.7",
        "where='state=3'": "where=state=3: expected text, as state is in these runs, such as failed",
        "where='test>20'": r"where=test>20: test is from 0 to 1, such as test>0\.6; .*where='test %>60'",
        "where='val/acc<70'": "val/acc is from 0 to 1",
        "where=good": "where=good: expected NAME OPERATOR VALUE",
        "remove=everything": "remove=everything: expected runs, checkpoints",
        "csv=[a]": r"csv=\[a\]: expected text or null",
        "confirm=perhaps": "confirm=perhaps: expected true or false",
    }.items(),
)
def test_invalid_settings_are_refused(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        listed(override)
