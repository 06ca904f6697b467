"""Overhead of a sweep: python -m emotion.bench measure=sweeps [runs=1000].

Trains one batch on synthetic faces, then lists and ranks `runs` copies of the run's folder.
"""

import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig

from emotion.benchmarks.config import BenchConfig
from emotion.benchmarks.measurement import BenchResult, Measurement
from emotion.config.compose import compose
from emotion.errors import counted

if TYPE_CHECKING:
    from emotion.records.run_folder import Run

SHORT = (
    "data=synthetic", "data.training=20", "trainer.max_epochs=1", "trainer.limit_train_batches=1", "compile.cpu=false",
    "logger=csv",
)  # fmt: skip


def run(config: BenchConfig) -> BenchResult:
    """Measure the seconds to compose, to run without epochs, to list and to rank, and the size of a run's folder."""
    from emotion.records.run_folder import find_runs, folder_size
    from emotion.reporting.ranking import ranking_tables

    model = HydraConfig.get().runtime.choices["model"] if HydraConfig.initialized() else config.name
    compose_seconds = []
    for seed in range(config.rounds + 1):
        started = time.perf_counter()
        compose("train", f"seed={seed}")
        compose_seconds.append(time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as folder:
        trained = _train(Path(folder) / "trained", model, config.trainer["accelerator"])
        overhead = (trained.record.wall_seconds or 0) - trained.record.fit_seconds
        megabytes = {
            "all": folder_size(trained.folder) / 1e6,
            "last.ckpt": (trained.folder / "checkpoints" / "last.ckpt").stat().st_size / 1e6,
        }
        copies = Path(folder) / "copies"
        for number in range(config.runs):
            (copies / f"seed={number}").mkdir(parents=True)
            shutil.copy(trained.folder / "record.json", copies / f"seed={number}")
        started = time.perf_counter()
        runs = find_runs(copies)
        list_seconds = time.perf_counter() - started
        ranking_tables([run.record for run in runs], [run.folder.name for run in runs])
        rank_seconds = time.perf_counter() - started
    seconds = {
        "composed": median(compose_seconds[1:]),
        "besides_epochs": overhead,
        "listed": list_seconds,
        "ranked": rank_seconds,
    }
    measurements = [
        Measurement("compose a config", "s", seconds["composed"]),
        Measurement(f"{model}: a run without its epochs", "s", overhead),
        Measurement(f"list {counted(config.runs, 'run')}", "s", list_seconds),
        Measurement(f"list and rank {counted(config.runs, 'run')}", "s", rank_seconds),
        Measurement(f"{model}: folder of a run", "MB", megabytes["all"]),
    ]
    details = {"runs": config.runs, "model": model, "seconds": seconds, "megabytes": megabytes}
    return BenchResult(details, measurements)


def _train(folder: Path, model: str, accelerator: str) -> "Run":
    """Train twice and return the second run; the first is a warm-up."""
    from emotion.records.run_folder import read_run
    from emotion.train import train

    for name in ("first", "second"):
        train(compose("train", f"model={model}", f"trainer.accelerator={accelerator}", *SHORT), folder / name)
    return read_run(folder / "second")
