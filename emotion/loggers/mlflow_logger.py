"""Track runs in MLflow: in one database for all runs, or on a server."""

import contextlib
import functools
import json
import logging
import os
import re
import sqlite3
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from emotion.config.compose import flatten
from emotion.errors import Pruned, Stopped, UserError, first_line, missing_extra
from emotion.loggers.run_logger import RunLogger
from emotion.records.run_record import provenance


def _continue_on_error(method: Callable[..., None]) -> Callable[..., None]:
    """Run a logging method on rank 0; after MLflow's first error print one message and log nothing more."""

    @rank_zero_only
    @functools.wraps(method)
    def wrapper(self: "MlflowLogger", *args: object, **kwargs: object) -> None:
        from mlflow.exceptions import MlflowException

        if self.failed:
            return
        try:
            method(self, *args, **kwargs)
        except MlflowException as error:
            self.failed = True
            print(f"*** MLflow failed, this run is no longer logged there: {first_line(error)} ***", flush=True)

    return wrapper


class MlflowLogger(RunLogger, MLFlowLogger):
    """Lightning's MLFlowLogger with parameters named as on the command line and epochs as steps.

    A resumed run continues the same MLflow run. Figures and checkpoints are not uploaded: the tag `folder` names the
    run's folder, `save_dir`. If MLflow fails during training, the run continues without it. `tracking_uri` is
    sqlite:///FILE, shared by all runs, or the address of a server.

    Raises:
        UserError: MLflow is not installed, or cannot write to `tracking_uri`.
    """

    kind = "mlflow"

    def __init__(self, save_dir: str, seed: int, experiment: str, tracking_uri: str) -> None:
        self.folder, self.seed, self.failed = Path(save_dir), seed, False
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            self._connect(experiment, tracking_uri)
        else:
            Logger.__init__(self)

    def _connect(self, experiment: str, tracking_uri: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # the default of 7 takes minutes
        setting = f"logger.mlflow.tracking_uri={tracking_uri}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # SQLAlchemy 2.1 about MLflow 3.17
            try:
                import mlflow
            except ImportError as error:
                raise missing_extra("logger=mlflow", error.name, "mlflow") from error
            logging.getLogger("mlflow").setLevel(logging.ERROR)
            if tracking_uri.startswith("sqlite:"):
                _check_sqlite(tracking_uri)
            elif not tracking_uri.startswith(("http://", "https://", "postgresql", "mysql", "mssql")):
                raise UserError(
                    f"{setting}: expected sqlite:///FILE, such as sqlite:///outputs/mlflow.db, or http://SERVER."
                )
            try:
                source = provenance()
                tags = {
                    "folder": str(self.folder),
                    "mlflow.source.type": "LOCAL",
                    "mlflow.source.name": source["command"],
                }
                if source["commit"]:
                    tags["mlflow.source.git.commit"] = source["commit"]
                super().__init__(experiment, self.title, tracking_uri, tags)
                mlflow.set_tracking_uri(tracking_uri)
                self._experiment_id = mlflow.set_experiment(experiment).experiment_id
                run_id = self.read_id()
                runs = self._mlflow_client.search_runs([self._experiment_id], f"attributes.run_id = '{run_id}'")
                self._run_id = run_id if runs else None  # else it was deleted
            except Exception as error:  # SQLAlchemy, requests and MLflow have their own
                raise UserError(f"{setting}: {first_line(error)}") from error

    @_continue_on_error
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log the settings of a new run; MLflow cannot change those of a resumed one."""
        if self.run_id == self.read_id():
            self.experiment.update_run(self.run_id, status="RUNNING")
        else:
            super().log_hyperparams(_parameters(self.settings(params)))
            self.write_id(str(self.run_id))

    @_continue_on_error
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics of an epoch, with the epoch (from 1) as the step."""
        if "epoch" in metrics:
            values = {name: value for name, value in metrics.items() if name != "epoch"}
            super().log_metrics(values, int(metrics["epoch"]) + 1)

    @_continue_on_error
    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Log the final scores and end the run."""
        super().log_metrics(scores, 0)
        super().finalize()

    @_continue_on_error
    def finalize(self, status: str = "success") -> None:
        """Set the run's status: FINISHED, KILLED (by a signal or a pruner) or FAILED."""
        stopped = isinstance(sys.exception(), Stopped | Pruned | KeyboardInterrupt | SystemExit)
        super().finalize("KILLED" if status == "failed" and stopped else status)


def _check_sqlite(uri: str) -> None:
    """Raise UserError unless the file is writable: MLflow would retry for minutes."""
    path = Path(uri.partition("?")[0].removeprefix("sqlite:///"))
    setting = f"logger.mlflow.tracking_uri={uri}"
    if not uri.startswith("sqlite:///") or path.name in ("", ":memory:"):
        raise UserError(f"{setting} names no file; expected sqlite:///FILE, such as sqlite:///outputs/mlflow.db.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as file:
            file.execute("BEGIN IMMEDIATE")
            file.execute("SELECT 1 FROM sqlite_master")
            file.execute("ROLLBACK")
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"{setting}: {first_line(error)}; expected a writable file.") from error


def _parameters(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings by their names on the command line, with the characters that MLflow allows."""
    return {
        re.sub(r"[^\w/.: -]", "_", key)[:250]: value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in flatten(settings)
    }
