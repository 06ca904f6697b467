"""A disk that is full, read-only or out of inodes gives one message and leaves the previous file unchanged."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from emotion.checkpoints.load import read_checkpoint
from emotion.checkpoints.locate import LAST_CHECKPOINT
from emotion.data.cache import prepare
from emotion.data.faces import FaceChunk
from emotion.inference.onnx_backend import OnnxBackend
from emotion.loggers.csv_logger import read_metrics
from tests.conftest import csv_lines
from tests.counted import Tally
from tests.io.test_disk import disk
from tests.processes import Moment, start_verb
from tests.test_cli import SMALL

FULL, READ_ONLY, NO_INODES = "full", "read-only", "no inodes"
MESSAGES = {FULL: "no space left on device", READ_ONLY: "read-only file system", NO_INODES: "no space left on device"}
LONG = [*[one for one in SMALL if "max_epochs" not in one], "trainer.max_epochs=3", "~callbacks.early_stopping",
        "cache_dir=cache", "trainer.precision=32-true", "hydra.run.dir=disk/run"]  # fmt: skip
MOMENTS = {
    "cache": Moment("open", "images.u8", waits=True),
    "checkpoint": Moment("open", "checkpoints/.last.", 3, waits=True),  # a file is opened to write and to sync
    "log": Moment("open", "run/.metrics.", 3, waits=True),
    "export": Moment("open", "export/.v4_attention.", waits=True),
}


@contextmanager
def unwritable(kind: str, folder: Path, root: Path) -> Iterator[None]:
    """Put the disk at `root`, or for read-only its `folder`, into this state."""
    with ExitStack() as stack:
        if kind == READ_ONLY:
            for options in (["--bind", str(folder), str(folder)], ["-o", "remount,bind,ro", str(folder)]):
                subprocess.run(["mount", *options], check=True)
            stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
        elif kind == FULL:
            filler = root / "filler"
            stack.callback(filler.unlink)
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        else:
            fillers = root / "fillers"
            fillers.mkdir()
            stack.callback(subprocess.run, ["rm", "-r", str(fillers)], check=True)
            with suppress(OSError):
                for number in range(100_000):
                    (fillers / str(number)).touch()
        yield


@pytest.mark.hard
@pytest.mark.promise("disk")
@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("what", MOMENTS)
def test_an_unwritable_file_gives_one_message(
    kind: str, what: str, fer_csv: Path, few_faces: FaceChunk, tally: Tally, tmp_path: Path
) -> None:
    reader = {"_target_": "emotion.data.readers.fer2013.read_csv", "path": str(fer_csv)}
    with tally(f"{kind} {what}"), disk(tmp_path / "disk", "20m,nr_inodes=300") as small:
        run = small / "run"
        if what == "cache":
            previous = prepare(reader, small / "cache").images.copy()
            fer_csv.with_name("fer2013.csv").write_text("\n".join(csv_lines(few_faces)[:40]) + "\n")
            arguments = ["prepare", "data=fer2013_csv", f"cache_dir={small / 'cache'}"]
        elif what == "export":
            assert start_verb("train", LONG, Path("before")).wait() == 0
            arguments = ["export", f"checkpoint={run}"]
            assert start_verb(*split(arguments), Path("before")).wait() == 0
        else:
            arguments = ["train", *LONG]
        verb = start_verb(*split(arguments), Path("log"), MOMENTS[what])
        assert verb.pipe.poll(60), verb.log.read_text()
        folder = {"cache": small / "cache", "checkpoint": run / "checkpoints", "log": run, "export": run / "export"}
        with unwritable(kind, folder[what], small):
            verb.pipe.send("continue")
            status = verb.wait()
        errors = [line for line in verb.log.read_text().splitlines() if line.startswith("error: ")]
        assert status == 2, verb.log.read_text()[-1500:]
        assert len(errors) == 1
        assert MESSAGES[kind] in errors[0].lower()
        assert "Traceback" not in verb.log.read_text()
        if kind != READ_ONLY:
            assert [str(path) for path in small.rglob("*partial*")] == []
        if what == "cache":
            fer_csv.write_text("\n".join(csv_lines(few_faces)) + "\n")
            assert np.array_equal(prepare(reader, small / "cache").images, previous)
        elif what == "export":
            assert OnnxBackend(run / "export/v4_attention.onnx").classes
        else:
            assert read_checkpoint(run / LAST_CHECKPOINT).epoch == {"checkpoint": 0, "log": 0}[what]
            assert read_metrics(run / "metrics.csv")


def split(command: list[str]) -> tuple[str, list[str]]:
    """Split a command into verb and arguments."""
    return command[0], command[1:]
