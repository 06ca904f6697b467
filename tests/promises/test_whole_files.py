"""Every file is written under a temporary name, synced and renamed, and then its folder is synced."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from emotion.config.compose import compose
from emotion.export import export
from emotion.train import train
from tests.counted import Tally

FILES = (
    "run/checkpoints/last.ckpt", "run/checkpoints/best.ckpt", "run/record.json", "run/.hydra/config.yaml",
    "run/metrics.csv", "run/rows.npz", "run/predictions.npz", "run/label_map.json", "out/run.onnx",
    "out/run.safetensors",
)  # fmt: skip


@pytest.fixture
def other_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put temporary files on another file system, from which no file can be renamed to this one."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == Path().stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    monkeypatch.setenv("TMPDIR", str(other))
    monkeypatch.setattr(tempfile, "tempdir", str(other))


@pytest.mark.promise("atomic")
@pytest.mark.usefixtures("other_file_system")
def test_a_file_is_synced_then_renamed_then_its_folder_synced(
    small_config: Callable[..., DictConfig], tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, int]] = []
    sync, replace = os.fsync, os.replace

    def recorded_sync(handle: int) -> None:
        calls.append(("synced", os.fstat(handle).st_ino))
        sync(handle)

    def recorded_replace(source: Path, target: Path) -> None:
        assert Path(source).parent == Path(target).parent
        calls.append((f"renamed to {Path(target).absolute()}", os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_sync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    train(small_config("trainer.max_epochs=1"), Path("run"))
    for target in ("onnx", "weights"):
        export(compose("export", "checkpoint=run", f"target={target}", "name=run", "output=out"), Path("out"))
    for name in FILES:
        with tally(name):
            file = Path(name).absolute()
            moved = max(index for index, (what, _) in enumerate(calls) if what == f"renamed to {file}")
            assert ("synced", calls[moved][1]) in calls[:moved]
            assert calls[moved + 1] == ("synced", file.parent.stat().st_ino)
            assert file.stat().st_ino == calls[moved][1]
