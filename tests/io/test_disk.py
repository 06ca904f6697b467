"""A disk that is full or cannot be written to: one message, and what was there before is whole."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from emotion.checkpoints.load import read_checkpoint
from emotion.checkpoints.locate import LAST_CHECKPOINT
from tests.processes import Ended
from tests.sweeps.conftest import swept

__all__ = ["swept"]
Swept = Callable[..., Ended]


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, of so many bytes."""
    if os.geteuid() != 0:
        pytest.skip("a disk of its own needs root")
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine mounts no disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_during_a_checkpoint_leaves_the_former_one(swept: Swept, tmp_path: Path) -> None:
    with disk(tmp_path / "small", "600k") as small:
        run = small / "run"
        ended = swept("model.hidden=600", "trainer.max_epochs=4", f"hydra.run.dir={run}")
        assert ended.status == 2
        assert "last.ckpt: no space left on device. Free some space; what was there before is as it was." in ended.err
        assert f"Go on with: python -m emotion.train resume={run.relative_to(tmp_path)}" in ended.err
        assert "Traceback" not in ended.err
        epoch = read_checkpoint(run / LAST_CHECKPOINT).epoch
        assert not list(run.rglob("*.partial*"))
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        assert swept("model.hidden=600", "trainer.max_epochs=4", f"hydra.run.dir={run}", "resume=auto").status == 0
        assert read_checkpoint(run / LAST_CHECKPOINT).epoch == 3 > epoch


@pytest.mark.parametrize("one", [["hydra.run.dir=small/run"], ["-m", "seed=0,1", "hydra.sweep.dir=small/sweep"]])
def test_a_folder_that_cannot_be_written_to_is_said_at_once(one: list[str], swept: Swept, tmp_path: Path) -> None:
    with disk(tmp_path / "small", "600k") as small:
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        ended = swept(*one)
    assert ended.status == 2
    assert "cannot write" in ended.err
    assert "read-only file system. Choose a folder that can be written to" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_file_in_the_folders_place_is_said_at_once(swept: Swept) -> None:
    Path("outputs").write_text("")
    ended = swept("hydra.run.dir=outputs/run")
    assert ended.status == 2
    assert len(ended.err.splitlines()) == 1
    assert "not a directory. Choose another folder" in ended.err
