"""How long every verb takes to answer `--help`, against `import torch`, each in a fresh process."""

import subprocess
import sys
import time
from statistics import median
from typing import Any

from emotion.benchmarks.scoreboard import Line, Measured
from emotion.cli import VERBS

Settings = dict[str, Any]
TORCH = "import torch"


def bench_start_up(settings: Settings) -> Measured:
    """The median seconds of `rounds` processes each, in turn."""
    asked = {TORCH: ["-c", TORCH]} | {verb: ["-m", f"emotion.{verb}", "--help"] for verb in VERBS}
    rounds: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(settings["rounds"]):
        for name, arguments in asked.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            rounds[name].append(time.perf_counter() - started)
    seconds = {name: median(times) for name, times in rounds.items()}
    lines = [Line(f"emotion.{verb} --help", "s", seconds[verb], TORCH, seconds[TORCH]) for verb in VERBS]
    return Measured({"seconds": rounds}, lines)
