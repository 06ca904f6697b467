"""A signal at any time ends a run within 10 s with its exit status and a complete checkpoint."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from emotion.checkpoints.load import read_checkpoint
from emotion.checkpoints.locate import LAST_CHECKPOINT
from tests.counted import Tally
from tests.processes import Moment, start_verb
from tests.test_cli import SMALL

RUN = Path("run")
LONG = [*[one for one in SMALL if "max_epochs" not in one], "trainer.max_epochs=100", "~callbacks.early_stopping",
        "cache_dir=cache", "trainer.precision=32-true", f"hydra.run.dir={RUN}"]  # fmt: skip
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138}
SCONTROL = "#!/bin/sh\necho $@ >> requests\n"
"""A substitute for Slurm's command that notes its arguments; tests/slurm uses the real one."""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate the environment of a Slurm job."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/scontrol").write_text(SCONTROL)
    (tmp_path / "bin/scontrol").chmod(0o755)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


@pytest.mark.hard
@pytest.mark.promise("signals")
@pytest.mark.usefixtures("job")
@pytest.mark.parametrize("signum", STATUS)
@pytest.mark.parametrize("half", [0, 1])
def test_a_signal_ends_a_run(
    signum: signal.Signals, half: int, tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(f"{signum} {half}")
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        with tally(f"{signum.name} {half}.{number}"):
            verb = start_verb("train", LONG, Path("log"), Moment("open", "run/.lock"))
            assert verb.pipe.poll(60)
            time.sleep(rng.uniform(0, 4))
            os.kill(verb.process.pid or 0, signum)
            assert verb.wait(10) == STATUS[signum], verb.log.read_text()[-500:]
            trained = "faces/s" in verb.log.read_text()  # printed after some batches
            if trained or (RUN / LAST_CHECKPOINT).exists():
                read_checkpoint(RUN / LAST_CHECKPOINT)
            assert "Traceback" not in verb.log.read_text()
            if signum is signal.SIGUSR1:
                assert Path("requests").read_text() == "requeue 7\n"
