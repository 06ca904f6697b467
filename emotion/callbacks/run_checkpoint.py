"""The best and the last checkpoint, which survive moving the run's folder and contain metrics.csv."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from emotion.loggers.csv_logger import CsvLogger


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint for a run that finds its best checkpoint after its folder was moved.

    Lightning forgets the best score when the folder's path has changed, and always forgets the latest score. The
    checkpoint also contains the rows of metrics.csv up to the current epoch: the file itself may lack the last one, or
    contain rows of later epochs, which are trained again.
    """

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the rows of metrics.csv."""
        epochs = trainer.fit_loop.epoch_progress.current.state_dict()
        for logger in (logger for logger in trainer.loggers if isinstance(logger, CsvLogger)):
            rows = {epoch: dict(row) for epoch, row in logger.rows.items()}
            if epochs["processed"] > epochs["completed"]:  # at the end of an epoch
                metrics = {name: float(value) for name, value in trainer.logged_metrics.items() if name != "epoch"}
                rows[trainer.current_epoch] = rows.get(trainer.current_epoch, {}) | metrics
            checkpoint["metrics"] = rows

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore metrics.csv."""
        for logger in (logger for logger in trainer.loggers if isinstance(logger, CsvLogger)):
            logger.rows = checkpoint["metrics"]
            logger.write()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state with paths in the run's current folder."""
        state = state_dict | {"dirpath": self.dirpath}
        for name in ("best_model_path", "last_model_path", "kth_best_model_path"):
            state[name] = self._relocate(state[name])
        state["best_k_models"] = {self._relocate(path): score for path, score in state["best_k_models"].items()}
        super().load_state_dict(state)
        self.current_score = state["current_score"]

    def _relocate(self, path: str) -> str:
        return str(Path(self.dirpath or "") / Path(path).name) if path else path
