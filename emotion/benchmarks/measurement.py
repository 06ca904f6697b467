"""The one table that every measure adds its lines to."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from emotion.reporting.tables import print_table


class Line(NamedTuple):
    """A figure of this package and what it is held against; a unit that ends in /s is the better the more of it."""

    what: str
    unit: str
    figure: float
    against: str = ""
    other: float | None = None

    def times(self) -> float | None:
        """How many times as good as the other, None where there is none."""
        if not self.other or not self.figure:
            return None
        return self.figure / self.other if self.unit.endswith("/s") else self.other / self.figure


class Measured(NamedTuple):
    """What a measure found, for the record, and its lines of the scoreboard."""

    found: dict[str, Any]
    lines: list[Line]


def print_scoreboard(lines: Sequence[Line], machine: str) -> None:
    """All lines as one table, in their order."""
    rows = [
        {
            "measured": line.what,
            "": line.unit,
            "this package": _figure(line.figure),
            "other": "" if line.other is None else _figure(line.other),
            "times as good": "" if line.times() is None else f"{line.times():.2f}",
            "the other is": line.against,
        }
        for line in lines
    ]
    print_table(machine, rows, left=2)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"


def busy_share(step: Callable[[], object], steps: int, device: str) -> float:
    """The share of the time, from the first operation to the last, in which `device` (cuda or cpu) ran any."""
    from torch.profiler import ProfilerActivity, profile

    step()  # what is made ready once does not count
    activity = {"cuda": ProfilerActivity.CUDA, "cpu": ProfilerActivity.CPU}[device]
    with profile(activities=[activity]) as record:
        for _ in range(steps):
            step()
    ran: list[tuple[float, float]] = [
        (event.time_range.start, event.time_range.end)
        for event in record.events() or []
        if event.device_type.name.lower() == device
    ]
    return covered(ran) / (max(end for _, end in ran) - min(start for start, _ in ran))


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of spans (start, end), which may overlap."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


STATUS = Path("/proc/self/status")


def memory(process: int | str = "self") -> dict[str, float]:
    """MB of a process's own (RssAnon), of files that it has mapped (RssFile), and of both at its peak (VmHWM).

    The peak is that of the program that runs, where `getrusage` begins with what the process that started it held.
    """
    lines = (STATUS.parents[1] / str(process) / STATUS.name).read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {kind: int(fields[kind].split()[0]) * 1024 / 1e6 for kind in ("RssAnon", "RssFile", "VmHWM")}


def peak() -> float | None:
    """MB that this process has held at most; None where the system does not tell."""
    return memory()["VmHWM"] if STATUS.is_file() else None
