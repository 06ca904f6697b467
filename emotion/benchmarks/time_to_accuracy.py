"""Time and test accuracy of whole experiments: python -m emotion.bench measure=time_to_accuracy."""

import subprocess
import sys
import time
from pathlib import Path

from emotion.benchmarks.config import BenchConfig
from emotion.benchmarks.measurement import BenchResult, Measurement
from emotion.errors import UserError


def run(config: BenchConfig) -> BenchResult:
    """Measure wall seconds and test accuracy of each experiment, whose run is a folder in the bench's own."""
    from emotion.records import archive
    from emotion.records.run_record import RunRecord

    for experiment in config.experiments:
        archive.experiment(experiment)  # checks that it exists
    runs, measurements = [], []
    for experiment in config.experiments:
        run_dir = Path(config.run_dir) / experiment
        command = [
            *(sys.executable, "-m", "emotion.train", f"experiment={experiment}", f"seed={config.seed}"),
            *(f"hydra.run.dir={run_dir}", f"data_dir={config.data_dir}", f"cache_dir={config.cache_dir}"),
            *config.overrides,
        ]
        started = time.perf_counter()
        status = subprocess.run(command, check=False).returncode
        seconds = time.perf_counter() - started
        if status:
            raise UserError(f"{' '.join(command[1:])} exited with status {status}; see its output.")
        record = RunRecord.read(run_dir) or RunRecord()
        accuracy = {tta: scores["all"]["accuracy"][0] for tta, scores in record.test_scores.items()}
        measurements.append(Measurement(f"{experiment}, start to scores", "s", seconds))
        measurements += [
            Measurement(f"{experiment}, accuracy, tta={tta}", "%", 100 * value) for tta, value in accuracy.items()
        ]
        runs.append({"experiment": experiment, "seed": config.seed, "seconds": seconds, "accuracy": accuracy})
    return BenchResult({"runs": runs}, measurements)
