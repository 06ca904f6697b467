"""Experiment trackers hold what metrics.csv holds, are told to nobody, and follow a run that stops and goes on."""

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from omegaconf import DictConfig

from emotion.config.compose import compose
from emotion.errors import Stopped, UserError
from emotion.loggers.csv_logger import read_metrics
from emotion.loggers.mlflow_logger import MlflowLogger
from emotion.loggers.wandb_logger import WandbLogger
from emotion.train import train
from tests.conftest import signal_at

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Config = Callable[..., DictConfig]
RUN = Path("outputs/small/now")
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}
os.environ |= QUIET  # whichever test imports them first
SCORES = {f"test/{name}/{tta}" for name in ("accuracy", "macro_f1") for tta in ("none", "flip")}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of one that several runs share, as they do: making it takes MLflow a second."""
    pytest.importorskip("mlflow", reason="needs pip install 'emotion[mlflow]'")
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def tracked(database: str, small_config: Config, request: pytest.FixtureRequest) -> Callable[..., DictConfig]:
    """A config whose run MLflow keeps in the test's own experiment."""

    def make(*overrides: str) -> DictConfig:
        own = (f"name={request.node.name}", "logger=mlflow", f"logger.mlflow.tracking_uri={database}")
        return small_config(*own, *overrides)

    return make


@pytest.fixture
def runs(database: str, request: pytest.FixtureRequest) -> Callable[[], "list[Run]"]:
    """Finds the runs of the test's experiment."""

    def find() -> "list[Run]":
        client = client_of(database)
        experiment = client.get_experiment_by_name(request.node.name)
        return list(client.search_runs([experiment.experiment_id]))

    return find


def client_of(uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SQLAlchemy 2.1, of what MLflow 3.17 calls
        return MlflowClient(uri)


def points(uri: str, run: "Run") -> dict[str, list[tuple[int, float]]]:
    """Step and value of all points of all metrics."""
    client = client_of(uri)
    found = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: sorted((point.step, point.value) for point in history) for name, history in found.items()}


def table(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The same of metrics.csv."""
    rows = read_metrics(folder / "metrics.csv")
    names = sorted({name for row in rows.values() for name in row})
    return {name: [(epoch, row[name]) for epoch, row in sorted(rows.items())] for name in names}


def test_mlflow_holds_settings_every_epoch_and_final_scores(
    tracked: Config, runs: Callable[[], "list[Run]"], database: str, capfd: pytest.CaptureFixture[str]
) -> None:
    train(tracked("seed=3"), RUN)
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "now, seed 3"
    assert run.data.tags["folder"] == str(RUN)
    found = points(database, run)
    scores = json.loads((RUN / "record.json").read_text())["scores"]["test"]
    assert {name: found.pop(name) for name in SCORES} == {
        f"test/{name}/{tta}": [(0, scores[tta]["all"][name][0])]
        for name in ("accuracy", "macro_f1")
        for tta in ("none", "flip")
    }
    assert found == table(RUN)
    assert run.data.params["optimizer.lr"] == "0.0003"
    assert run.data.params["model.widths"] == "[8, 16]"
    assert run.data.params["trainer.max_epochs"] == "2"
    assert run.data.params["resume"] == "null"
    assert not [name for name in run.data.params if name.startswith("logger")]
    assert not Path("mlruns").exists()
    assert capfd.readouterr().err == ""


def test_a_stopped_run_is_killed_in_mlflow_and_goes_on_as_the_same_run(
    tracked: Config, runs: Callable[[], "list[Run]"], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tracked("trainer.max_epochs=3")
    with monkeypatch.context() as patch:
        signal_at(patch, "training_step", 8, signal.SIGTERM)  # in the second epoch
        with pytest.raises(Stopped):
            train(cfg, RUN)
    (stopped,) = runs()
    assert stopped.info.status == "KILLED"
    assert not SCORES & set(stopped.data.metrics)
    cfg.resume = str(RUN)
    cfg.trainer.max_epochs = 4  # which a parameter that is there cannot follow
    train(cfg, RUN)
    (resumed,) = runs()
    assert (resumed.info.run_id, resumed.info.status) == (stopped.info.run_id, "FINISHED")
    assert {k: v for k, v in points(database, resumed).items() if k not in SCORES} == table(RUN)
    assert set(resumed.data.metrics) >= SCORES


def test_a_run_that_breaks_has_failed_in_mlflow(
    tracked: Config, runs: Callable[[], "list[Run]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emotion.classifier.EmotionClassifier.validation_step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(tracked(), RUN)
    assert [run.info.status for run in runs()] == ["FAILED"]


def test_an_epoch_that_is_done_again_is_not_doubled(database: str, runs: Callable[[], "list[Run]"]) -> None:
    for _ in range(2):  # as after a run was killed
        logger = MlflowLogger("again", 0, "test_an_epoch_that_is_done_again_is_not_doubled", database)
        logger.log_hyperparams({"labels": {"what?": ["x"]}})
        for epoch in range(3):
            logger.log_metrics({"epoch": epoch, "val/acc": epoch / 3}, step=100 * epoch)
    (run,) = runs()
    assert points(database, run) == {"val/acc": [(0, 0.0), (1, 1 / 3), (2, 2 / 3)]}
    assert run.data.params == {"labels.what_": '["x"]'}
    assert run.info.status == "RUNNING"


def test_a_run_that_was_deleted_in_mlflow_begins_another(database: str, runs: Callable[[], "list[Run]"]) -> None:
    for _ in range(2):
        logger = MlflowLogger("deleted", 0, "test_a_run_that_was_deleted_in_mlflow_begins_another", database)
        logger.log_metrics({"epoch": 0, "val/acc": 0.5})
        (run,) = runs()
        logger.client.delete_run(run.info.run_id)
    assert runs() == []


def test_what_mlflow_fails_at_is_said_once_and_training_goes_on(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def refuse(*args: object, **kwargs: object) -> None:
        raise MlflowException("database or disk is full\n[SQL: ...]")

    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    logger = MlflowLogger("full", 0, "full", database)
    logger.log_hyperparams({"seed": 0})
    for epoch in range(3):
        logger.log_metrics({"epoch": epoch, "val/acc": 0.5})
    logger.log_scores({"test/accuracy/none": 0.5})
    logger.finalize("success")
    assert capsys.readouterr().out == "*** MLflow keeps no more of this run: database or disk is full ***\n"


REFUSED = {
    "file:./mlruns": "expected sqlite:///FILE, such as sqlite:///outputs/mlflow.db, or http://SERVER",
    "mlruns": "expected sqlite:///FILE",
    "sqlite://": "names no file",
    "sqlite:///notes.txt": "file is not a database; expected a file that can be written to",
    "sqlite:///notes.txt/mlflow.db": "notes.txt",
    "sqlite:///.": "names no file",
    "sqlite:////dev/null/mlflow.db": "/dev/null",
    "sqlite:////tmp": "unable to open database file",
}


@pytest.mark.parametrize("uri", REFUSED)
def test_where_mlflow_cannot_write_is_one_message(uri: str, database: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path("notes.txt").write_text("no database, but a text of some length\n" * 9)
    with pytest.raises(UserError, match=REFUSED[uri]) as error:
        MlflowLogger("x", 0, "x", uri)
    assert str(error.value).startswith(f"logger.mlflow.tracking_uri={uri}")
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""
    assert os.listdir() == ["notes.txt"]


def test_where_mlflow_cannot_write_nothing_is_trained(tracked: Config) -> None:
    cfg = tracked("logger.mlflow.tracking_uri=sqlite:////dev/null/mlflow.db")
    with pytest.raises(UserError, match="/dev/null"):
        train(cfg, RUN)
    assert not (RUN / "record.json").exists()


def test_an_experiment_that_was_deleted_is_a_mistake(database: str) -> None:
    name = "deleted"
    client = client_of(database)
    client.delete_experiment(client.create_experiment(name))
    with pytest.raises(UserError, match=r"experiment deleted was deleted\. Choose another name=NAME, or bring it back"):
        MlflowLogger("x", 0, name, database)


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_package_that_is_not_installed_is_a_mistake_that_names_its_extra(
    package: str, small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"pip install 'emotion\[{package}\]'"):
        train(small_config(f"logger={package}"), RUN)
    assert not (RUN / "record.json").exists()


@pytest.mark.parametrize("choice", ["mlflow", "wandb"])
def test_a_tracker_keeps_metrics_csv_and_adds_to_what_is_chosen_besides(choice: str) -> None:
    assert list(compose("train", f"logger={choice}").logger) == ["csv", choice]
    assert list(compose("train", f"logger=[default,{choice}]").logger) == ["csv", "tensorboard", choice]
    assert list(compose("train", f"logger=[csv,{choice}]").logger) == ["csv", choice]


def test_several_processes_keep_one_run() -> None:
    """All but the first neither begin a run nor write to it."""
    from lightning.pytorch.utilities import rank_zero_only

    rank = rank_zero_only.rank  # type: ignore[attr-defined]
    rank_zero_only.rank = 1  # type: ignore[attr-defined]
    try:
        logger = MlflowLogger("second", 0, "x", "sqlite:///second.db")
        logger.log_hyperparams({"a": 1})
        logger.log_metrics({"epoch": 0, "a": 1})
        logger.log_scores({"b": 1})
        logger.finalize("success")
    finally:
        rank_zero_only.rank = rank  # type: ignore[attr-defined]
    assert list(Path.cwd().iterdir()) == []


@pytest.fixture
def offline() -> Iterator[None]:
    """W&B, whose service ends with the test."""
    wandb = pytest.importorskip("wandb", reason="needs pip install 'emotion[wandb]'")
    yield
    wandb.teardown()


def wandb_records(file: Path) -> list[Any]:
    """What W&B wrote: records in the layout of LevelDB's log, blocks of 32 KiB after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts, found = file.read_bytes(), 7, b"", []
    assert content[:4] == b":W&B"
    while place < len(content):
        if (left := 32768 - place % 32768) < 7:  # too little for another head
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            found.append(Record.FromString(parts))
            parts = b""
    return found


def values(items: Iterable[Any]) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


class Offline:
    """A folder of W&B's, read back."""

    def __init__(self, folder: Path) -> None:
        (file,) = folder.glob("*.wandb")
        kinds: dict[str, list[Any]] = {}
        for record in wandb_records(file):
            kind = record.WhichOneof("record_type")
            kinds.setdefault(kind, []).append(getattr(record, kind))
        self.run = kinds["run"][0]
        self.exit_codes = [one.exit_code for one in kinds["exit"]]
        self.rows = [values(history.item) for history in kinds.get("history", [])]
        self.summary = values([item for summary in kinds.get("summary", []) for item in summary.update])
        self.config = values(self.run.config.update)

    def table(self) -> dict[int, dict[str, float]]:
        """Its rows by epoch, without W&B's own columns."""
        own = {row["_step"]: {name: v for name, v in row.items() if name[0] != "_"} for row in self.rows}
        assert len(own) == len(self.rows)
        return own


def offline_runs(folder: Path) -> list[Offline]:
    return [Offline(path) for path in sorted(folder.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_mtime)]


@pytest.mark.usefixtures("offline")
def test_wandb_offline_holds_settings_every_epoch_and_final_scores(
    small_config: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    train(small_config("logger=wandb", "name=small", "seed=3"), RUN)
    (found,) = offline_runs(RUN)
    assert (found.run.project, found.run.run_group, found.run.display_name) == ("emotion", "small", "now, seed 3")
    assert found.table() == read_metrics(RUN / "metrics.csv")
    scores = json.loads((RUN / "record.json").read_text())["scores"]["test"]
    assert {name for name in found.summary if name.startswith("test/")} == SCORES
    assert found.summary["test/accuracy/flip"] == scores["flip"]["all"]["accuracy"][0]
    assert found.config["optimizer"]["lr"] == 3e-4
    assert found.config["command"]
    assert found.exit_codes == [0]
    said = capfd.readouterr()
    assert said.err == ""
    assert "wandb:" not in said.out


@pytest.mark.usefixtures("offline")
def test_a_stopped_run_has_failed_in_wandb_and_goes_on_as_the_same_run(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = small_config("logger=wandb", "trainer.max_epochs=3", "hydra.run.dir=x")
    with monkeypatch.context() as patch:
        signal_at(patch, "training_step", 8, signal.SIGTERM)  # in the second epoch
        with pytest.raises(Stopped):
            train(cfg, RUN)
    cfg.resume = str(RUN)
    train(cfg, RUN)
    first, second = offline_runs(RUN)
    assert first.exit_codes == [1]
    assert second.exit_codes == [0]
    assert first.run.run_id == second.run.run_id == (RUN / "wandb_run.txt").read_text().strip()
    assert not set(first.table()) & set(second.table())
    assert first.table() | second.table() == read_metrics(RUN / "metrics.csv")


@pytest.mark.usefixtures("offline")
def test_neither_package_is_let_tell_its_maker(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in QUIET:
        monkeypatch.delenv(name)
    MlflowLogger("x", 0, "told", database)
    WandbLogger("x", 0, "told")
    assert {name: os.environ[name] for name in QUIET} == QUIET


@pytest.mark.usefixtures("offline")
def test_two_runs_of_one_process_are_two_in_wandb() -> None:
    for seed in (0, 1):
        logger = WandbLogger(f"seed={seed}", seed, "emotion")
        logger.log_hyperparams({"seed": seed})
        logger.log_metrics({"epoch": 0, "val/acc": seed / 2})  # and is never let go of
    logger.finalize("failed")
    (first,), (second,) = (offline_runs(Path(f"seed={seed}")) for seed in (0, 1))
    assert (first.run.display_name, second.run.display_name) == ("seed=0", "seed=1")
    assert (first.table(), second.table()) == ({0: {"val/acc": 0.0}}, {0: {"val/acc": 0.5}})
    assert first.run.run_id != second.run.run_id
