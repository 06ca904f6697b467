"""Concurrent processes: a cache is prepared once, a folder has one run, a sweep survives the loss of a worker."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emotion.checkpoints.load import read_checkpoint
from emotion.checkpoints.locate import LAST_CHECKPOINT
from emotion.data.cache import prepare
from tests.counted import Tally
from tests.processes import Moment, start_verb
from tests.slurm.cluster import wait
from tests.test_cli import SMALL

LONG = [*[one for one in SMALL if "max_epochs" not in one], "~callbacks.early_stopping", "cache_dir=cache",
        "trainer.precision=32-true"]  # fmt: skip

pytestmark = [pytest.mark.hard, pytest.mark.promise("together")]


def test_four_processes_prepare_one_cache(fer_csv: Path, tally: Tally) -> None:
    arguments = [f"data_dir={fer_csv.parent}", "data=fer2013_csv", "cache_dir=cache"]
    with tally("cache"):
        first = start_verb("prepare", arguments, Path("0.log"), Moment("open", "images.u8", waits=True))
        assert first.pipe.poll(60)
        rest = [start_verb("prepare", arguments, Path(f"{number}.log")) for number in (1, 2, 3)]
        assert wait(lambda: all(one.log.exists() for one in rest), 60)
        first.pipe.send("continue")
        assert [one.wait() for one in (first, *rest)] == [0] * 4
        assert len([path for path in Path("cache").iterdir() if path.is_dir() and path.name != "stamps"]) == 1
        reader = {"_target_": "emotion.data.readers.fer2013.read_csv", "path": str(fer_csv)}
        assert np.array_equal(prepare(reader, "cache").images, prepare(reader, "another").images)


def test_a_second_training_in_the_same_folder_is_refused(tally: Tally) -> None:
    arguments = [*LONG, "trainer.max_epochs=3", "hydra.run.dir=run"]
    with tally("run"):
        first = start_verb("train", arguments, Path("first.log"), Moment("open", ".last.", waits=True))
        assert first.pipe.poll(60)
        second = start_verb("train", arguments, Path("second.log"))
        assert second.wait() == 2
        assert re.search(r"run is in use by process \d+ on .*; wait for it or stop it", second.log.read_text())
        first.pipe.send("continue")
        assert first.wait() == 0, first.log.read_text()[-1000:]
        assert json.loads(Path("run/record.json").read_text())["epochs"] == 3


def test_a_sweep_survives_the_loss_of_a_worker(tally: Tally) -> None:
    command = [
        *(sys.executable, "-m", "emotion.train", "-m", *LONG, "trainer.max_epochs=30", "seed=0,1,2,3"),
        *("hydra/launcher=joblib", "hydra.launcher.n_jobs=4", "hydra.sweep.dir=sweep"),
    ]
    runs = [Path(f"sweep/seed={seed}") for seed in range(4)]
    with tally("sweep"):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
            assert wait(lambda: (runs[1] / LAST_CHECKPOINT).is_file(), 180)
            (process,) = re.findall(r"process (\d+)", (runs[1] / ".lock").read_text())
            os.kill(int(process), 9)
            assert first.wait(300) == 1
        saved = read_checkpoint(runs[1] / LAST_CHECKPOINT).epoch + 1
        finished = {run: (run / "record.json").read_bytes() for run in runs if has_scores(run)}
        second = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert second.returncode == 0, second.stderr
        assert "4 finished" in second.stdout
        assert sorted(Path("sweep").glob("seed=*")) == runs
        assert all(has_scores(run) for run in runs)
        assert {run: (run / "record.json").read_bytes() for run in finished} == finished  # not trained again
        resumed = json.loads((runs[1] / "record.json").read_text())
        assert resumed["epochs"] == 30 > saved > 0
        assert len(resumed["resumed"]) == 1
        assert not list(Path().rglob("*partial*"))


def has_scores(run: Path) -> bool:
    record = run / "record.json"
    return record.is_file() and json.loads(record.read_text()).get("scores") is not None
