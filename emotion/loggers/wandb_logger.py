"""Runs in Weights & Biases: in files of the run's folder, or sent as they come."""

import os
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_only

from emotion.errors import UserError
from emotion.loggers.run_logger import Tracker, first_line, missing

if TYPE_CHECKING:  # an extra of its own
    from wandb import Run


class WandbLogger(Tracker):
    """A run in Weights & Biases: offline, in `wandb/offline-run-*` in the run's folder, which `wandb sync` can send.

    A run that goes on adds another such folder of the same run; `wandb sync` takes them in order. Final scores are in
    the run's summary.

    Args:
        save_dir: the run's folder.
        seed: the run's.
        project: W&B's name for what belongs together.
        group: W&B's name for runs to be compared.
        offline: false sends everything as it comes, after `wandb login`.

    Raises:
        UserError: W&B is not installed; when training starts: it refuses to begin a run.
    """

    kind = "wandb"

    def __init__(self, save_dir: str, seed: int, project: str, group: str | None = None, offline: bool = True) -> None:
        super().__init__(save_dir, seed)
        self.project, self.group, self.offline = project, group, offline
        self.run: Run | None = None
        self._check()

    @rank_zero_only
    def _check(self) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # of its own faults and times, to W&B
        try:
            import wandb.sdk  # noqa: F401
        except ImportError as error:
            raise UserError(missing("wandb", error)) from error

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: object, **kwargs: object) -> None:
        """Begin the run, or go on with it: with its record's settings, or these where it has none."""
        record = self.record()
        about = {name: record[name] for name in ("command", "commit") if record.get(name)}
        self._begun(self.settings(params) | about)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add to the row of the metrics' epoch, which is W&B's step."""
        if "epoch" in metrics:
            row = {name: value for name, value in metrics.items() if name != "epoch"}
            self._begun().log(row, step=int(metrics["epoch"]))

    @rank_zero_only
    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Keep the final scores, and let go of the run."""
        self._begun().summary.update(dict(scores))
        self._end(0)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Let go of a run that was stopped or failed; one that was trained is still to be scored."""
        if status == "failed":
            self._end(1)

    def _begun(self, config: dict[str, Any] | None = None) -> "Run":
        if self.run is None:
            import wandb

            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self.run = wandb.init(
                    project=self.project,
                    group=self.group,
                    name=self.title,
                    id=self.kept_id(),
                    resume="allow",
                    reinit="finish_previous",
                    dir=self.folder,
                    config=config,
                    mode="offline" if self.offline else "online",
                    settings=wandb.Settings(silent=self.offline, console="off", disable_git=True),
                )
            except wandb.Error as error:
                raise UserError(
                    f"W&B: {first_line(error).rstrip('.')}. With logger.wandb.offline=true it asks nobody."
                ) from error
            self.keep_id(self.run.id)
        return self.run

    def _end(self, status: int) -> None:
        if self.run is not None:
            import wandb

            self.run.finish(exit_code=status)
            wandb.teardown()  # ends W&B's own process: only then is all of the run in its file
            self.run = None
