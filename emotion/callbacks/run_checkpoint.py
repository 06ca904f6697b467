"""Checkpoints of a run whose folder may have moved since."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from emotion.loggers.csv_logger import CsvLogger


class RunCheckpoint(ModelCheckpoint):
    """Lightning's, but that a resumed run knows its best checkpoint again wherever its folder lies by now.

    Lightning's forgets the best score when the folder's path has changed, and the latest score always. A checkpoint
    that a run goes on from holds its table of metrics as well, with the epoch's own that ends with it: the file gets
    those after the checkpoint, and might lack them.
    """

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the rows of metrics.csv."""
        epochs = trainer.fit_loop.epoch_progress.current.state_dict()
        for logger in (one for one in trainer.loggers if isinstance(one, CsvLogger)):
            rows = {epoch: dict(row) for epoch, row in logger.rows.items()}
            if epochs["processed"] > epochs["completed"]:  # at an epoch's end
                now = {name: float(value) for name, value in trainer.logged_metrics.items() if name != "epoch"}
                rows[trainer.current_epoch] = rows.get(trainer.current_epoch, {}) | now
            checkpoint["metrics"] = rows

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with them."""
        for logger in (one for one in trainer.loggers if isinstance(one, CsvLogger)):
            logger.rows = checkpoint["metrics"]
            logger.write()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state over, its paths brought to this run's folder."""
        state = state_dict | {"dirpath": self.dirpath}
        for name in ("best_model_path", "last_model_path", "kth_best_model_path"):
            state[name] = self._here(state[name])
        state["best_k_models"] = {self._here(path): score for path, score in state["best_k_models"].items()}
        super().load_state_dict(state)
        self.current_score = state["current_score"]

    def _here(self, path: str) -> str:
        return str(Path(self.dirpath or "") / Path(path).name) if path else path
