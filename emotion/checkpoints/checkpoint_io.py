"""Checkpoints that are whole or not there."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from emotion.io.atomic import write_atomically
from emotion.io.digests import seal

FORMER = "former.ckpt"
"""The last checkpoint but one, which a run goes on from where the last is damaged."""


class WholeFileIO(TorchCheckpointIO):
    """Writes beside the target, syncs and renames; Lightning's own passes through the temporary directory, unsynced."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Replace `path` by the checkpoint, or leave what was there; one that a run goes on from keeps its former."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save(checkpoint, path, Path(path).with_name(FORMER) if "optimizer_states" in checkpoint else None)


def save(checkpoint: dict[str, Any], path: str | Path, former: Path | None = None) -> None:
    """Replace `path` by the checkpoint, sealed; equal ones are equal files, whatever they are called.

    What stood there is kept as `former`, where that is given.

    Raises:
        OSError: the system does not take the file, which torch by itself reports as a fault of its own.
    """
    write_atomically(path, lambda temporary: _save(checkpoint, temporary), former)


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    try:
        with path.open("wb") as file:
            torch.save(checkpoint, file)
        seal(path)
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        raise cause or error from None
