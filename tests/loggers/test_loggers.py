"""Experiment trackers: they log what metrics.csv has, ask no network, and follow a run that stops and resumes."""

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
NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}
os.environ |= NO_TELEMETRY  # before any test imports them
SCORES = {f"test/{name}/{tta}" for name in ("accuracy", "macro_f1") for tta in ("none", "flip")}


def table(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The epochs and values of each metric in metrics.csv."""
    rows = read_metrics(folder / "metrics.csv")
    names = sorted({name for row in rows.values() for name in row})
    return {name: [(epoch, row[name]) for epoch, row in sorted(rows.items())] for name in names}


class Database:
    """An MLflow database, and one experiment in it."""

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri, self.experiment = uri, experiment

    @property
    def client(self) -> "MlflowClient":
        from mlflow import MlflowClient

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # SQLAlchemy 2.1 about MLflow 3.17
            return MlflowClient(self.uri)

    def logger(self, folder: str = "run") -> MlflowLogger:
        return MlflowLogger(folder, 0, self.experiment, self.uri)

    def runs(self) -> "list[Run]":
        experiment = self.client.get_experiment_by_name(self.experiment)
        return list(self.client.search_runs([experiment.experiment_id]))

    def points(self, run: "Run") -> dict[str, list[tuple[int, float]]]:
        """The steps and values of each metric."""
        histories = {name: self.client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        return {name: sorted((point.step, point.value) for point in points) for name, points in histories.items()}


@pytest.fixture(scope="module")
def database_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: MLflow needs seconds to create its tables."""
    pytest.importorskip("mlflow", reason="needs pip install 'emotion[mlflow]'")
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def mlflow(database_uri: str, request: pytest.FixtureRequest) -> Database:
    return Database(database_uri, request.node.name)


@pytest.fixture
def mlflow_config(mlflow: Database, small_config: Config) -> Config:
    logger = ("logger=mlflow", f"logger.mlflow.tracking_uri={mlflow.uri}", f"name={mlflow.experiment}")
    return lambda *overrides: small_config(*logger, *overrides)


def test_mlflow_has_the_settings_the_metrics_of_each_epoch_and_the_scores(
    mlflow: Database, mlflow_config: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    train(mlflow_config("seed=3"), RUN)
    (run,) = mlflow.runs()
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "now, seed 3"
    assert run.data.tags["folder"] == str(RUN)
    points = mlflow.points(run)
    scores = json.loads((RUN / "record.json").read_text())["scores"]["test"]
    assert {name: points.pop(name) for name in SCORES} == {
        f"test/{name}/{tta}": [(0, scores[tta]["all"][name][0])]
        for name in ("accuracy", "macro_f1")
        for tta in ("none", "flip")
    }
    assert points == table(RUN)
    expected = {"optimizer.lr": "0.0003", "model.widths": "[8, 16]", "trainer.max_epochs": "2", "resume": "null"}
    assert run.data.params.items() >= expected.items()
    assert not [name for name in run.data.params if name.startswith("logger")]
    assert not Path("mlruns").exists()
    assert capfd.readouterr().err == ""


def test_a_stopped_run_is_killed_in_mlflow_and_resumes_as_the_same_run(
    mlflow: Database, mlflow_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = mlflow_config("trainer.max_epochs=3")
    with monkeypatch.context() as patch:
        signal_at(patch, "training_step", 8, signal.SIGTERM)  # in the second epoch
        with pytest.raises(Stopped):
            train(cfg, RUN)
    (stopped,) = mlflow.runs()
    assert stopped.info.status == "KILLED"
    assert not SCORES & set(stopped.data.metrics)
    cfg.resume = str(RUN)
    cfg.trainer.max_epochs = 4  # a logged parameter cannot be changed
    train(cfg, RUN)
    (resumed,) = mlflow.runs()
    assert (resumed.info.run_id, resumed.info.status) == (stopped.info.run_id, "FINISHED")
    assert {name: points for name, points in mlflow.points(resumed).items() if name not in SCORES} == table(RUN)
    assert set(resumed.data.metrics) >= SCORES


def test_a_run_that_raises_has_failed_in_mlflow(
    mlflow: Database, mlflow_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emotion.classifier.EmotionClassifier.validation_step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(mlflow_config(), RUN)
    assert [run.info.status for run in mlflow.runs()] == ["FAILED"]


def test_a_continued_run_is_running_until_it_was_deleted_in_mlflow(mlflow: Database) -> None:
    for epoch in range(2):
        logger = mlflow.logger()
        logger.log_hyperparams({"labels": {"what?": ["x"]}, "epoch": epoch})
        logger.log_metrics({"epoch": epoch, "val/acc": epoch / 2}, step=100)
    (run,) = mlflow.runs()
    assert mlflow.points(run) == {"val/acc": [(1, 0.0), (2, 0.5)]}
    assert run.data.params == {"labels.what_": '["x"]', "epoch": "0"}
    assert run.info.status == "RUNNING"
    mlflow.client.delete_run(run.info.run_id)
    mlflow.logger().log_hyperparams({})
    assert [other.info.run_id == run.info.run_id for other in mlflow.runs()] == [False]


def test_an_error_of_mlflow_is_printed_once_and_training_continues(
    mlflow: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def refuse(*args: object, **kwargs: object) -> None:
        raise MlflowException("database or disk is full\n[SQL: ...]")

    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    logger = mlflow.logger()
    logger.log_hyperparams({"seed": 0})
    for epoch in range(3):
        logger.log_metrics({"epoch": epoch, "val/acc": 0.5})
    logger.log_scores({"test/accuracy/none": 0.5})
    logger.finalize("success")
    message = "*** MLflow failed, this run is no longer logged there: database or disk is full ***\n"
    assert capsys.readouterr().out == message


INVALID_URIS = {
    "file:./mlruns": "expected sqlite:///FILE, such as sqlite:///outputs/mlflow.db, or http://SERVER",
    "mlruns": "expected sqlite:///FILE",
    "sqlite://": "names no file",
    "sqlite:///notes.txt": "file is not a database; expected a writable file",
    "sqlite:///notes.txt/mlflow.db": "notes.txt",
    "sqlite:///.": "names no file",
    "sqlite:////dev/null/mlflow.db": "/dev/null",
    "sqlite:////tmp": "unable to open database file",
}


@pytest.mark.parametrize("uri", INVALID_URIS)
@pytest.mark.usefixtures("mlflow")
def test_an_unwritable_address_is_refused_in_one_line(uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path("notes.txt").write_text("not a database, but a text of some length\n" * 9)
    with pytest.raises(UserError, match=INVALID_URIS[uri]) as error:
        MlflowLogger("x", 0, "x", uri)
    assert str(error.value).startswith(f"logger.mlflow.tracking_uri={uri}")
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""
    assert os.listdir() == ["notes.txt"]


def test_nothing_is_trained_if_the_tracker_cannot_write(mlflow_config: Config) -> None:
    with pytest.raises(UserError, match="/dev/null"):
        train(mlflow_config("logger.mlflow.tracking_uri=sqlite:////dev/null/mlflow.db"), RUN)
    assert not (RUN / "record.json").exists()


def test_a_deleted_experiment_is_refused(mlflow: Database) -> None:
    mlflow.client.delete_experiment(mlflow.client.create_experiment(mlflow.experiment))
    with pytest.raises(UserError, match=r"deleted experiment .* can restore the experiment"):
        mlflow.logger()


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_missing_package_is_refused_with_its_extra(
    package: str, small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"pip install 'emotion\[{package}\]'"):
        train(small_config(f"logger={package}"), RUN)
    assert not (RUN / "record.json").exists()


@pytest.mark.parametrize("choice", ["mlflow", "wandb"])
def test_a_tracker_adds_to_metrics_csv_and_to_other_loggers(choice: str) -> None:
    assert list(compose("train", f"logger={choice}").logger) == ["csv", choice]
    assert list(compose("train", f"logger=[default,{choice}]").logger) == ["csv", "tensorboard", choice]
    assert list(compose("train", f"logger=[csv,{choice}]").logger) == ["csv", choice]


def test_only_the_first_process_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    for logger in (MlflowLogger("second", 0, "x", "sqlite:///second.db"), WandbLogger("second", 0, "x")):
        logger.log_hyperparams({"a": 1})
        logger.log_metrics({"epoch": 0, "a": 1})
        logger.log_scores({"b": 1})
        logger.finalize("success")
    assert list(Path.cwd().iterdir()) == []


@pytest.fixture
def offline() -> Iterator[None]:
    """W&B; its service ends with the test."""
    wandb = pytest.importorskip("wandb", reason="needs pip install 'emotion[wandb]'")
    yield
    wandb.teardown()


def wandb_records(file: Path) -> list[Any]:
    """Parse a file of W&B: records in LevelDB's log format, blocks of 32 KiB after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, offset, parts, records = file.read_bytes(), 7, b"", []
    assert content[:4] == b":W&B"
    while offset < len(content):
        if (left := 32768 - offset % 32768) < 7:  # padding
            offset += left
            continue
        length, kind = int.from_bytes(content[offset + 4 : offset + 6], "little"), content[offset + 6]
        parts += content[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            records.append(Record.FromString(parts))
            parts = b""
    return records


def values(items: Iterable[Any]) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


class OfflineRun:
    """The content of an offline run of W&B."""

    def __init__(self, folder: Path) -> None:
        (file,) = folder.glob("*.wandb")
        kinds: dict[str, list[Any]] = {}
        for record in wandb_records(file):
            kind = record.WhichOneof("record_type")
            kinds.setdefault(kind, []).append(getattr(record, kind))
        self.run = kinds["run"][0]
        self.exit_codes = [exit.exit_code for exit in kinds["exit"]]
        self.rows = [values(history.item) for history in kinds.get("history", [])]
        self.summary = values([item for summary in kinds.get("summary", []) for item in summary.update])
        configs = [self.run.config, *kinds.get("config", [])]
        self.config = {name: value for config in configs for name, value in values(config.update).items()}

    def table(self) -> dict[int, dict[str, float]]:
        """The metrics by epoch."""
        by_epoch = {
            row["_step"]: {name: v for name, v in row.items() if name[0] != "_" and name != "trainer/global_step"}
            for row in self.rows
        }
        assert len(by_epoch) == len(self.rows)
        return by_epoch


def offline_runs(folder: Path) -> list[OfflineRun]:
    folders = sorted(folder.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_mtime)
    return [OfflineRun(path) for path in folders]


@pytest.mark.usefixtures("offline")
def test_wandb_offline_has_the_settings_the_metrics_of_each_epoch_and_the_scores(
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
    printed = capfd.readouterr()
    assert printed.err == ""
    assert "wandb:" not in printed.out


@pytest.mark.usefixtures("offline")
def test_a_stopped_run_has_failed_in_wandb_and_resumes_as_the_same_run(
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
    assert (first.exit_codes, second.exit_codes) == ([1], [0])
    assert first.run.run_id == second.run.run_id == (RUN / "wandb_run.txt").read_text().strip()
    assert not set(first.table()) & set(second.table())
    assert first.table() | second.table() == read_metrics(RUN / "metrics.csv")


@pytest.mark.usefixtures("offline")
def test_no_telemetry_is_sent(mlflow: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NO_TELEMETRY:
        monkeypatch.delenv(name)
    mlflow.logger()
    WandbLogger("x", 0, "private")
    assert {name: os.environ[name] for name in NO_TELEMETRY} == NO_TELEMETRY


@pytest.mark.usefixtures("offline")
def test_two_runs_of_one_process_are_two_runs_in_wandb() -> None:
    for seed in (0, 1):
        logger = WandbLogger(f"seed={seed}", seed, "emotion")
        logger.log_hyperparams({"seed": seed})
        logger.log_metrics({"epoch": 0, "val/acc": seed / 2}, step=1)  # the first run is not finished
    logger.finalize("failed")
    (first,), (second,) = (offline_runs(Path(f"seed={seed}")) for seed in (0, 1))
    assert (first.run.display_name, second.run.display_name) == ("seed=0", "seed=1")
    assert (first.table(), second.table()) == ({1: {"val/acc": 0.0}}, {1: {"val/acc": 0.5}})
    assert first.run.run_id != second.run.run_id
