"""A full or read-only disk gives one message and leaves existing files unchanged."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion.checkpoints.load import read_checkpoint
from emotion.checkpoints.locate import LAST_CHECKPOINT
from emotion.io.picture import save_figure, save_image
from emotion.reporting.figures import confusion_matrix
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
        assert "last.ckpt: no space left on device. Free some space; no file is left half-written." in result.err
        assert f"python -m emotion.train resume={run.relative_to(tmp_path)}" in result.err
        assert "Traceback" not in result.err
        epoch = read_checkpoint(run / LAST_CHECKPOINT).epoch
        assert not list(run.rglob("*.partial*"))
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        assert sweep("model.hidden=600", "trainer.max_epochs=4", f"hydra.run.dir={run}", "resume=auto").status == 0
        assert read_checkpoint(run / LAST_CHECKPOINT).epoch == 3 > epoch


def fill(folder: Path, free: int) -> None:
    """Leave this many bytes of a file system free, rounded to its blocks."""
    status = os.statvfs(folder)
    (folder / "filler").write_bytes(bytes(status.f_bavail * status.f_frsize - free))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
def test_a_picture_that_does_not_fit_is_not_written(suffix: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    with disk(tmp_path / "small", "600k") as small:
        path = small / f"noise{suffix}"
        path.write_bytes(b"previous")
        for free in (0, 4096, 16384):
            fill(small, free)
            with pytest.raises(OSError, match="No space left"):
                save_image(Image.fromarray(noise), path)
            assert path.read_bytes() == b"previous"
            (small / "filler").unlink()


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_a_figure_that_does_not_fit_is_not_written(suffix: str, tmp_path: Path) -> None:
    figure = confusion_matrix(np.eye(4, dtype=np.int64), "abcd", "title")
    with disk(tmp_path / "small", "600k") as small:
        for free in (0, 4096, 8192):
            fill(small, free)
            with pytest.raises(OSError, match="No space left"):
                save_figure(figure, small / f"confusion{suffix}")
            (small / "filler").unlink()
            assert not list(small.iterdir())


def test_a_table_ends_with_a_complete_row_if_the_disk_is_full(tmp_path: Path) -> None:
    pixels = " ".join(["0"] * 24 + ["255"] * 24) + " "
    Path("faces.csv").write_text("pixels\n" + f"{pixels * 48}\n" * 100)
    with disk(tmp_path / "small", "200k") as small:
        table = small / "out/predictions.jsonl"
        table.parent.mkdir()
        table.write_text("previous")
        fill(small, 0)
        done = run_verb("predict", "faces.csv", f"output={table.parent}")
        assert done.status == 2
        assert table.read_text() == "previous"
        (small / "filler").unlink()
        fill(small, 12288)
        done = run_verb("predict", "faces.csv", f"output={table.parent}")
        message = (
            f"error: cannot write {table}: no space left on device. Free some space; no file is left half-written."
        )
        assert (done.status, done.err.splitlines()[-1]) == (2, message)
        rows = [json.loads(row) for row in table.read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(len(rows)))
    assert 0 < len(rows) < 100


def test_weights_and_their_description_change_together(small_run: Callable[..., Path], tmp_path: Path) -> None:
    run = small_run(Path("outputs/run"))
    with disk(tmp_path / "small", "1m") as small:
        assert run_verb("export", str(run), "target=weights", f"output={small}").status == 0
        files = {path: path.read_bytes() for path in small.iterdir()}
        weights = next(path for path in files if path.suffix == ".safetensors")
        fill(small, len(files[weights]) + 4096)
        done = run_verb("export", str(run), "target=weights", f"output={small}")
        assert done.status == 2, done.out
        assert {path: path.read_bytes() for path in files} == files


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
