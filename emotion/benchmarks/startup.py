"""Start-up time of every verb's --help compared with `import torch`: python -m emotion.bench measure=startup."""

import subprocess
import sys
from collections.abc import Callable
from statistics import median

from emotion.benchmarks.config import BenchConfig
from emotion.benchmarks.measurement import BenchResult, Measurement, alternate, timed
from emotion.config.compose import VERBS

BASELINE = "import torch"


def run(config: BenchConfig) -> BenchResult:
    """Measure the median seconds of `rounds` processes each."""

    def start(*arguments: str) -> Callable[[], float]:
        return timed(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True))

    commands = {BASELINE: start("-c", BASELINE)} | {verb: start("-m", f"emotion.{verb}", "--help") for verb in VERBS}
    seconds = alternate(commands, config.rounds)
    baseline = median(seconds[BASELINE])
    return BenchResult(
        {"seconds": seconds},
        [Measurement(f"emotion.{verb} --help", "s", median(seconds[verb]), BASELINE, baseline) for verb in VERBS],
    )
