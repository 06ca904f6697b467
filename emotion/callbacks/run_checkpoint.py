"""Checkpoints of a run whose folder may have moved since."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class RunCheckpoint(ModelCheckpoint):
    """Lightning's, but that a resumed run knows its best checkpoint again wherever its folder lies by now.

    Lightning's forgets the best score when the folder's path has changed, and the latest score always.
    """

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
