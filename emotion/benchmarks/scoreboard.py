"""The one table that every measure adds its lines to."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from emotion import report


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
    report.print_table(machine, rows, left=2)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"
