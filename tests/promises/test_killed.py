"""After kill -9 at any moment all files are readable, and the resumed run equals an uninterrupted one."""

import json
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from emotion.checkpoints.load import read_checkpoint
from emotion.checkpoints.locate import LAST_CHECKPOINT
from emotion.data.cache import prepare
from emotion.data.faces import FaceChunk, Faces
from emotion.loggers.csv_logger import read_metrics
from emotion.records.run_record import RunRecord
from tests.conftest import csv_lines, record_of
from tests.counted import Tally
from tests.processes import Moment, RunningVerb, start_verb
from tests.test_cli import SMALL
from tests.training.test_resume import content, differences

RUN = Path("run")
LONG = [*[one for one in SMALL if "max_epochs" not in one and "training" not in one], "model.hidden=200",
        "data.training=24", "trainer.max_epochs=4", "~callbacks.early_stopping", "cache_dir=cache",
        "trainer.precision=32-true", f"hydra.run.dir={RUN}", "resume=auto"]  # fmt: skip
GROUPS = range(10)
"""Groups of five kills, which xdist distributes."""

pytestmark = [pytest.mark.hard, pytest.mark.promise("killed")]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Return an uninterrupted run and its seconds."""
    folder, before = tmp_path_factory.mktemp("uninterrupted"), Path.cwd()
    os.chdir(folder)
    start_verb("train", LONG, Path("warm")).wait()  # starts the server
    start = time.monotonic()
    for name in ("run", "cache"):
        Path(name).rename(f"first {name}")
    verb = start_verb("train", LONG, Path("log"))
    assert verb.wait() == 0, verb.log.read_text()
    os.chdir(before)
    return folder / RUN, time.monotonic() - start


def kill(verb: RunningVerb, after: float) -> None:
    """Kill the process after some seconds unless it has ended."""
    time.sleep(after)
    verb.process.kill()
    assert verb.wait() in (0, 128 + 9), verb.log.read_text()


def check_readable(run: Path) -> None:
    """Read all complete files."""
    for path in (one for one in run.rglob("*") if one.is_file() and ".partial" not in one.name):
        if path.suffix == ".ckpt":
            read_checkpoint(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".csv":
            read_metrics(path)
        elif path.suffix == ".npz":
            with np.load(path) as columns:
                dict(columns)
        elif path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".yaml":
            OmegaConf.load(path)
    RunRecord.read(run)


def trained_epochs(run: Path) -> int:
    """Return the number of epochs in metrics.csv."""
    path = run / "metrics.csv"
    return sum("train/loss" in row for row in read_metrics(path).values()) if path.is_file() else 0


def check_resumes(uninterrupted: Path) -> None:
    """Run the same command again and compare the result with the uninterrupted run."""
    done = trained_epochs(RUN)
    saved = read_checkpoint(RUN / LAST_CHECKPOINT).epoch + 1 if (RUN / LAST_CHECKPOINT).is_file() else 0
    assert saved >= done - 1, f"{done} epochs were trained and {saved} saved"
    again = start_verb("train", LONG, Path("again.log"))
    assert again.wait() == 0, again.log.read_text()[-1000:]
    for name in ("last", "best"):
        assert differences(content(uninterrupted, name), content(RUN, name)) == []
    assert (RUN / "metrics.csv").read_bytes() == (uninterrupted / "metrics.csv").read_bytes()
    scores = [record_of(run).scores for run in (uninterrupted, RUN)]
    assert scores[0] == scores[1]
    left = [str(path) for path in Path().rglob("*partial*")]
    assert left == []


@pytest.mark.parametrize("group", GROUPS)
def test_training_resumes(
    group: int, uninterrupted: tuple[Path, float], tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three at any moment, two while a checkpoint is being written."""
    whole, seconds = uninterrupted
    draw = random.Random(group)
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        with tally(f"{group}.{number}"):
            if number < 3:
                verb = start_verb("train", LONG, Path("log"))
                kill(verb, draw.uniform(0, seconds))
            else:
                verb = start_verb("train", LONG, Path("log"), Moment("open", ".partial.ckpt", draw.randrange(1, 5)))
                verb.pipe.poll(60)
                kill(verb, draw.uniform(0, 0.006))
                assert verb.wait() == 128 + 9
            check_readable(RUN)
            check_resumes(whole)


@pytest.fixture
def many_faces(tmp_path: Path, few_faces: FaceChunk) -> Path:
    """Write a fer2013.csv that takes a while to read."""
    path = tmp_path / "data/fer2013.csv"
    path.parent.mkdir()
    header, *lines = csv_lines(few_faces)
    path.write_text("\n".join([header, *(40 * lines)]) + "\n")
    return path


def equal(one: Faces, other: Faces) -> bool:
    arrays = ("images", "labels", "usage", "origin")
    return one.digest == other.digest and all(np.array_equal(getattr(one, n), getattr(other, n)) for n in arrays)


@pytest.mark.parametrize("group", GROUPS)
def test_preparation_resumes(group: int, many_faces: Path, tally: Tally) -> None:
    reader = {"_target_": "emotion.data.readers.fer2013.read_csv", "path": str(many_faces)}
    arguments = [f"data_dir={many_faces.parent}", "data=fer2013_csv"]
    for cache in ("warm", "whole"):  # for the first the server starts
        start = time.monotonic()
        assert start_verb("prepare", [*arguments, f"cache_dir={cache}"], Path("log")).wait() == 0
    seconds, draw = time.monotonic() - start, random.Random(group)
    whole = prepare(reader, "whole")
    for number in range(5):
        with tally(f"{group}.{number}"):
            cache = Path(f"cache {number}")
            verb = start_verb("prepare", [*arguments, f"cache_dir='{cache}'"], Path("log"))
            kill(verb, draw.uniform(0, seconds))
            for folder in (one for one in cache.glob("*") if one.is_dir() and len(one.name) == 32):
                json.loads((folder / "meta.json").read_text())
            assert equal(prepare(reader, cache), whole)
            assert not list(cache.rglob("*partial*"))
