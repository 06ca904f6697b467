"""What some minutes buy: each of `experiments` by its own command, from the start of the process to its scores."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from emotion import kept_runs
from emotion.benchmarks.scoreboard import Line, Measured
from emotion.errors import UserError
from emotion.run_records import read_record

Settings = dict[str, Any]


def bench_time_to_accuracy(settings: Settings) -> Measured:
    """Wall seconds and test accuracy of each experiment, whose runs lie below the bench's own.

    Raises:
        UserError: there is no such experiment, before any is begun; or a run failed, and its output says why.
    """
    for experiment in settings["experiments"]:
        kept_runs.experiment(experiment)  # or it is refused
    found, lines = [], []
    for experiment in settings["experiments"]:
        run_dir = Path(settings["run_dir"]) / experiment
        command = [
            *(sys.executable, "-m", "emotion.train", f"experiment={experiment}", f"seed={settings['seed']}"),
            *(f"hydra.run.dir={run_dir}", f"data_dir={settings['data_dir']}", f"cache_dir={settings['cache_dir']}"),
            *settings["given"],
        ]
        started = time.perf_counter()
        done = subprocess.run(command, check=False)
        took = time.perf_counter() - started
        if done.returncode:
            raise UserError(f"{' '.join(command[1:])} ended with status {done.returncode}; its output says why.")
        record = read_record(run_dir) or {}
        scores = {views: one["all"]["accuracy"][0] for views, one in record["scores"]["test"].items()}
        lines.append(Line(f"{experiment}, start to scores", "s", took))
        lines += [Line(f"{experiment}, accuracy, views={views}", "%", 100 * one) for views, one in scores.items()]
        found.append({"experiment": experiment, "seed": settings["seed"], "seconds": took, "accuracy": scores})
    return Measured({"runs": found}, lines)
