"""Track runs in Weights & Biases: offline in the run's folder, or online."""

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger
from lightning.pytorch.utilities import rank_zero_only

from emotion.errors import UserError, first_line, missing_extra
from emotion.io.atomic import make_folder
from emotion.loggers.run_logger import RunLogger


class WandbLogger(RunLogger, LightningWandbLogger):
    """Lightning's WandbLogger with epochs as steps and a run that resuming continues.

    Offline, W&B writes `wandb/offline-run-*` in the run's folder, `save_dir`, which `wandb sync` uploads; resuming adds
    another such folder with the same run id. Online, it uploads everything during training, after `wandb login`. The
    final scores are in the run's summary.

    Raises:
        UserError: W&B is not installed; or, when training starts, cannot start the run.
    """

    kind = "wandb"

    def __init__(self, save_dir: str, seed: int, project: str, group: str | None = None, offline: bool = True) -> None:
        self.folder, self.seed = Path(save_dir), seed
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb
        except ImportError as error:
            raise missing_extra("logger=wandb", error.name, "wandb") from error
        super().__init__(
            name=self.title,
            save_dir=self.folder,
            id=self.read_id(),
            project=project,
            group=group,
            mode="offline" if offline else "online",  # Lightning's `offline` sets an environment variable
            settings=wandb.Settings(silent=offline, console="off", disable_git=True),
        )
        self._wandb_init.pop("anonymous")  # which Lightning passes on and W&B 0.31 warns about

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:  # noqa: ANN401
        """The run, started or continued at the first access."""
        import wandb

        if self._experiment is None:
            make_folder(self.folder)
            if wandb.run is not None:
                wandb.run.finish()  # of a former run in this process, which Lightning would continue
        try:
            return super().experiment
        except wandb.Error as error:
            raise UserError(
                f"W&B: {first_line(error).rstrip('.')}. With logger.wandb.offline=true no connection is needed."
            ) from error

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log the settings, command and commit."""
        record = self.record()
        source = {name: value for name in ("command", "commit") if (value := getattr(record, name))}
        self.write_id(self.experiment.id)
        super().log_hyperparams(self.settings(params) | source)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics of an epoch, with its number from 1 as the step; Lightning plots by `trainer/global_step`."""
        if "epoch" in metrics:
            values = {name: value for name, value in metrics.items() if name != "epoch"}
            self.experiment.log(values | {"trainer/global_step": step}, step=int(metrics["epoch"]) + 1)

    @rank_zero_only
    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Log the final scores and end the run."""
        self.experiment.summary.update(dict(scores))
        self._finish(0)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End a run that stopped or failed; a trained one has yet to be scored."""
        if status == "failed":
            self._finish(1)

    def _finish(self, exit_code: int) -> None:
        if self._experiment is not None:
            import wandb

            self._experiment.finish(exit_code=exit_code)
            wandb.teardown()  # writes the rest of the run to its file
            self._experiment = None
