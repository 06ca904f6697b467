"""Atomic writing of checkpoints."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from emotion.io.atomic import make_folder, write_atomically

PREVIOUS = "previous.ckpt"
"""The checkpoint before the last one, from which a run resumes if the last one is damaged."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Replace checkpoints atomically; Lightning's own plugin neither syncs nor writes in the same folder."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Replace `path` by the checkpoint; one with training state keeps the checkpoint it replaces as `PREVIOUS`."""
        make_folder(Path(path).parent)
        previous = Path(path).with_name(PREVIOUS) if "optimizer_states" in checkpoint else None
        save_checkpoint(checkpoint, path, previous)


def save_checkpoint(checkpoint: dict[str, Any], path: str | Path, previous: Path | None = None) -> None:
    """Replace the .ckpt file `path` by Lightning's entries atomically, and keep the replaced file as `previous`.

    Equal checkpoints give equal bytes, whatever the file's name. Raises OSError if the file cannot be written.
    """
    write_atomically(path, lambda temporary: _save(checkpoint, temporary), previous)


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    try:
        with path.open("wb") as file:  # given a path, torch.save stores its name in the archive
            torch.save(checkpoint, file)
    except RuntimeError as error:  # torch's own, in the context of the OSError
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        raise cause or error from None
