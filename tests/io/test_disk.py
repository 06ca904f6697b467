"""A full or read-only disk gives one message and leaves existing files unchanged."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from emotion.checkpoints.load import read_checkpoint
from emotion.checkpoints.locate import LAST_CHECKPOINT
from tests.processes import CompletedVerb, run_verb
from tests.sweeps.conftest import sweep

__all__ = ["sweep"]
Sweep = Callable[..., CompletedVerb]


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of this size."""
    if os.geteuid() != 0:
        pytest.skip("mounting a disk needs root")
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not allow mounts")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_during_a_checkpoint_keeps_the_previous_one(sweep: Sweep, tmp_path: Path) -> None:
    with disk(tmp_path / "small", "600k") as small:
        run = small / "run"
        result = sweep("model.hidden=600", "trainer.max_epochs=4", f"hydra.run.dir={run}")
        assert result.status == 2
        assert "last.ckpt: no space left on device. Free some space; existing files are unchanged." in result.err
        assert f"python -m emotion.train resume={run.relative_to(tmp_path)}" in result.err
        assert "Traceback" not in result.err
        epoch = read_checkpoint(run / LAST_CHECKPOINT).epoch
        assert not list(run.rglob("*.partial*"))
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        assert sweep("model.hidden=600", "trainer.max_epochs=4", f"hydra.run.dir={run}", "resume=auto").status == 0
        assert read_checkpoint(run / LAST_CHECKPOINT).epoch == 3 > epoch


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("train", ["hydra.run.dir=/proc/x"]),
        ("train", ["-m", "seed=0,1", "hydra.sweep.dir=/proc/x"]),
        ("export", ["checkpoint=fast_cnn", "output=/proc/x"]),
        ("explain", ["checkpoint=fast_cnn", "output=/proc/x/y"]),
        ("runs", ["csv=/proc/x/y.csv"]),
    ],
)
def test_a_folder_that_cannot_be_made_is_reported_at_once(
    verb: str, arguments: list[str], small_run: Callable[..., Path]
) -> None:
    small_run(Path("outputs/run"))
    done = run_verb(verb, *arguments)
    assert done.status == 2
    message = r"error: cannot write /proc/x\S*: no such file or directory\. Choose a writable folder"
    assert re.match(message, done.err.splitlines()[-1]), done.err
    assert "converting" not in done.out


@pytest.mark.parametrize("folder", [["hydra.run.dir=small/run"], ["-m", "seed=0,1", "hydra.sweep.dir=small/sweep"]])
def test_a_read_only_folder_is_reported_at_once(folder: list[str], sweep: Sweep, tmp_path: Path) -> None:
    with disk(tmp_path / "small", "600k") as small:
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        result = sweep(*folder)
    assert result.status == 2
    assert "cannot write" in result.err
    assert "read-only file system. Choose a writable folder" in result.err
    assert result.err.splitlines()[-1].startswith("error: ")


def test_a_file_with_the_folders_name_is_reported_at_once(sweep: Sweep) -> None:
    Path("outputs").write_text("")
    result = sweep("hydra.run.dir=outputs/run")
    assert result.status == 2
    assert len(result.err.splitlines()) == 1
    assert "not a directory. Choose a writable folder" in result.err
