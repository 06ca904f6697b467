"""Runs in MLflow: one database of all of them, or a server."""

import contextlib
import json
import logging
import os
import re
import sqlite3
import sys
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_only

from emotion.errors import Pruned, Stopped, UserError
from emotion.loggers.run_logger import Tracker, first_line, missing

if TYPE_CHECKING:  # an extra of its own
    from mlflow import MlflowClient


class MlflowLogger(Tracker):
    """A run in MLflow: parameters named as on the command line, metrics with their epoch as step.

    Nothing is copied there: pictures and checkpoints stay in the run's folder, which is the tag `folder`. What MLflow
    fails at while a run trains is said once, and the run goes on without it.

    Args:
        save_dir: the run's folder.
        seed: the run's.
        experiment: MLflow's name for runs to be compared.
        tracking_uri: sqlite:///FILE, which all runs share, or the address of a server.

    Raises:
        UserError: MLflow is not installed, or cannot write there.
    """

    kind = "mlflow"

    def __init__(self, save_dir: str, seed: int, experiment: str, tracking_uri: str) -> None:
        super().__init__(save_dir, seed)
        self.run_id: str | None = None
        self.points: set[tuple[str, int, float]] = set()
        self.lost = False
        self._open(tracking_uri, experiment)

    @rank_zero_only
    def _open(self, tracking_uri: str, experiment: str) -> None:
        self.client, self.experiment_id = _mlflow(tracking_uri, experiment)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: object, **kwargs: object) -> None:
        """Begin the run, or go on with it: with the settings of its record, or these where it has none."""
        from mlflow.entities import Param

        settings = self.settings(params)

        def log(run_id: str) -> None:
            known = self.client.get_run(run_id).data.params  # which cannot be changed
            new = [Param(name, value[:6000]) for name, value in _flat(settings).items() if name not in known]
            for start in range(0, len(new), 100):  # as many as MLflow takes at once
                self.client.log_batch(run_id, params=new[start : start + 100])

        self._tell(log)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a point to each metric of an epoch, but for those that are there from before the run was stopped."""
        if "epoch" in metrics:
            self._log({name: value for name, value in metrics.items() if name != "epoch"}, int(metrics["epoch"]))

    @rank_zero_only
    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Keep the final scores; the run is finished."""
        self._log(scores, 0)
        self._end("FINISHED")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Say how the training ended: FINISHED, KILLED by a signal or a search, or FAILED."""
        stopped = isinstance(sys.exception(), Stopped | Pruned | KeyboardInterrupt | SystemExit)
        if self.run_id:
            self._end("FINISHED" if status != "failed" else "KILLED" if stopped else "FAILED")

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())

        def log(run_id: str) -> None:
            points = {(_named(name), step, float(value)) for name, value in metrics.items()} - self.points
            self.client.log_batch(run_id, metrics=[Metric(name, value, now, at) for name, at, value in sorted(points)])
            self.points |= points

        self._tell(log)

    def _end(self, status: str) -> None:
        self._tell(lambda run_id: self.client.set_terminated(run_id, status))

    def _tell(self, ask: Callable[[str], object]) -> None:
        """Ask something about the run, unless MLflow has failed before."""
        from mlflow.exceptions import MlflowException

        if self.lost:
            return
        try:
            self.run_id = self.run_id or self._former() or self._new()
            ask(self.run_id)
        except MlflowException as error:
            self.lost = True
            print(f"*** MLflow keeps no more of this run: {first_line(error)} ***", flush=True)

    def _former(self) -> str | None:
        """The run that was begun in this folder, gone on with, where MLflow still has it."""
        from mlflow.exceptions import MlflowException

        if not (run_id := self.kept_id()):
            return None
        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if run.info.lifecycle_stage != "active":  # deleted
            return None
        self.client.update_run(run_id, status="RUNNING")
        for name in run.data.metrics:
            self.points |= {(name, point.step, point.value) for point in self.client.get_metric_history(run_id, name)}
        return run_id

    def _new(self) -> str:
        record = self.record()
        tags = {
            "folder": str(self.folder),
            "mlflow.source.type": "LOCAL",
            "mlflow.source.name": record.get("command"),
            "mlflow.source.git.commit": record.get("commit"),
        }
        known = {name: value for name, value in tags.items() if value}
        run_id: str = self.client.create_run(self.experiment_id, run_name=self.title, tags=known).info.run_id
        self.keep_id(run_id)
        return run_id


def _mlflow(uri: str, experiment: str) -> tuple["MlflowClient", str]:
    """MLflow's client at an address that can be written to, and the id of the experiment there.

    Raises:
        UserError: it is not installed, or cannot write there, or the experiment was deleted.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # of what is called, to MLflow
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 7 leave a mistyped address unanswered for minutes
    given = f"logger.mlflow.tracking_uri={uri}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SQLAlchemy 2.1, of what MLflow 3.17 calls
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise UserError(missing("mlflow", error)) from error
        logging.getLogger("mlflow").setLevel(logging.ERROR)  # that it makes its tables
        if uri.startswith("sqlite:"):
            _check_sqlite(uri)
        elif not uri.startswith(("http://", "https://", "postgresql", "mysql", "mssql")):
            raise UserError(f"{given}: expected sqlite:///FILE, such as sqlite:///outputs/mlflow.db, or http://SERVER.")
        try:
            client = MlflowClient(uri)
            found = client.get_experiment_by_name(experiment)
            if found is None:
                try:
                    return client, client.create_experiment(experiment)
                except MlflowException as error:  # another run was quicker
                    if not (found := client.get_experiment_by_name(experiment)):
                        raise error
        except Exception as error:  # SQLAlchemy's and requests' own among them
            raise UserError(f"{given}: {first_line(error)}") from error
    if found.lifecycle_stage == "deleted":
        raise UserError(
            f"{given}: its experiment {experiment} was deleted. Choose another name=NAME, or bring it back: "
            f"mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return client, found.experiment_id


def _check_sqlite(uri: str) -> None:
    """Raises UserError unless the file can be written to; MLflow would try for minutes, and aloud."""
    path = Path(uri.partition("?")[0].removeprefix("sqlite:///"))
    given = f"logger.mlflow.tracking_uri={uri}"
    if not uri.startswith("sqlite:///") or path.name in ("", ":memory:"):
        raise UserError(f"{given} names no file; expected sqlite:///FILE, such as sqlite:///outputs/mlflow.db.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as file:
            file.execute("BEGIN IMMEDIATE")
            file.execute("SELECT 1 FROM sqlite_master")
            file.execute("ROLLBACK")
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"{given}: {first_line(error)}; expected a file that can be written to.") from error


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Settings by the names that the command line has for them."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        key = f"{before}{name}"
        if isinstance(value, Mapping):
            found |= _flat(value, f"{key}.")
        else:
            found[_named(key)] = value if isinstance(value, str) else json.dumps(value, default=str)
    return found


def _named(name: str) -> str:
    """As MLflow takes it."""
    return re.sub(r"[^\w/.: -]", "_", name)[:250]
