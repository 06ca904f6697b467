"""Results of benchmarks and their table; tools to measure rates, memory and device utilization."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from emotion.reporting.tables import print_table

if TYPE_CHECKING:
    from emotion.benchmarks.config import BenchConfig
    from emotion.classifier import EmotionClassifier
    from emotion.data.datamodule import EmotionDataModule

Result = TypeVar("Result")
STATUS = Path("/proc/self/status")
SYNTHETIC = {"_target_": "emotion.data.readers.synthetic.read", "training": 20, "public_test": 2, "private_test": 2}


class Measurement(NamedTuple):
    """A value, and the baseline that it is compared with. Higher is better for values per second, lower for others."""

    name: str
    unit: str
    value: float
    baseline: str = ""
    baseline_value: float | None = None

    def ratio(self) -> float | None:
        """Return how many times better the value is than its baseline; None without a baseline."""
        if not self.baseline_value or not self.value:
            return None
        return self.value / self.baseline_value if self.unit.endswith("/s") else self.baseline_value / self.value

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement for the record."""
        return self._asdict() | {"ratio": self.ratio()}


class BenchResult(NamedTuple):
    """The details of a benchmark for the record, and its measurements for the table."""

    details: dict[str, Any]
    measurements: list[Measurement]


def print_measurements(measurements: Sequence[Measurement], machine: str) -> None:
    """Print all measurements as one table; a measure may have none."""
    if not measurements:
        return
    rows = [
        {
            "measurement": one.name,
            "": one.unit,
            "this package": _format(one.value),
            "baseline": "" if one.baseline_value is None else _format(one.baseline_value),
            "times better": "" if one.ratio() is None else f"{one.ratio():.2f}",
            "baseline is": one.baseline,
        }
        for one in measurements
    ]
    print_table(machine, rows, left=2)


def _format(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"


def alternate(functions: Mapping[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """Call the functions in turn, `rounds` times, so that changes of the machine's speed affect all of them."""
    results: dict[str, list[Result]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            results[name].append(function())
    return results


def endless(make: Callable[[], Iterable[Result]]) -> Iterator[Result]:
    """Yield the items of one iterable after another."""
    while True:
        yield from make()


def timed(function: Callable[[], object]) -> Callable[[], float]:
    """Return a function that calls `function` and returns the seconds that it took."""

    def call() -> float:
        started = time.perf_counter()
        function()
        return time.perf_counter() - started

    return call


def synthetic_classifier(
    config: "BenchConfig", **source: int
) -> "tuple[EmotionClassifier, EmotionDataModule, dict[str, Any]]":
    """Return the config's classifier with random weights, synthetic faces, and their source."""
    from dataclasses import replace

    from emotion.training import setup

    data_config = SYNTHETIC | source
    config = replace(config, data=data_config)
    data, _ = setup.make_data(config)
    return setup.make_classifier(config, data), data, data_config


def utilization(step: Callable[[], object], steps: int, device: str) -> float:
    """Return the share of the time, from the first operation to the last, in which `device` (cuda or cpu) is busy."""
    from torch.profiler import ProfilerActivity, profile

    step()  # warm-up
    activity = {"cuda": ProfilerActivity.CUDA, "cpu": ProfilerActivity.CPU}[device]
    with profile(activities=[activity]) as record:
        for _ in range(steps):
            step()
    spans: list[tuple[float, float]] = [
        (event.time_range.start, event.time_range.end)
        for event in record.events() or []
        if event.device_type.name.lower() == device
    ]
    return union_length(spans) / (max(end for _, end in spans) - min(start for start, _ in spans))


def union_length(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of spans (start, end), which may overlap."""
    total, last = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, last))
        last = max(last, end)
    return total


def memory(process: int | str = "self") -> dict[str, float]:
    """Return the MB of a process's anonymous memory (RssAnon), mapped files (RssFile) and peak of both (VmHWM).

    The peak is that of the running program; `getrusage` starts from that of the process that started it.
    """
    lines = (STATUS.parents[1] / str(process) / STATUS.name).read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {kind: int(fields[kind].split()[0]) * 1024 / 1e6 for kind in ("RssAnon", "RssFile", "VmHWM")}


def peak_memory() -> float | None:
    """Return the peak memory of this process in MB; None on a system without /proc."""
    return memory()["VmHWM"] if STATUS.is_file() else None
