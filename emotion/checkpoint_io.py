"""Checkpoints that are whole or not there."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from emotion.files import write_atomically


class WholeFileIO(TorchCheckpointIO):
    """Writes beside the target, syncs and renames; Lightning's own passes through the temporary directory, unsynced."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Replace `path` by the checkpoint, or leave what was there."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save(checkpoint, path)


def save(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Replace `path` by the checkpoint; equal ones are equal files, whatever they are called.

    Raises:
        OSError: the system does not take the file, which torch by itself reports as a fault of its own.
    """
    write_atomically(path, lambda temporary: _save(checkpoint, temporary))


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    try:
        with path.open("wb") as file:
            torch.save(checkpoint, file)
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        raise cause or error from None
