"""Numbers, paths and durations as text."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from textwrap import fill
from typing import Any

from rich.console import Console

from emotion.runtime.announce import is_terminal


def console() -> Console:
    """Return a console for tables: as wide as the terminal, or 120 columns without one."""
    return Console(width=None if is_terminal() else 120)


def wrapped(text: str) -> str:
    """Wrap a paragraph to the width of the terminal, without breaking paths; unchanged without a terminal."""
    if not is_terminal():
        return text
    return fill(text, console().width, break_long_words=False, break_on_hyphens=False)


def format_duration(seconds: float) -> str:
    """Format seconds as 2.3s, 17s, 4m05s or 1h42m."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f}s" if whole < 10 else f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 6000 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def format_size(num_bytes: int) -> str:
    """Format the size of files as 3.1 kB or 4.6 MB."""
    return f"{num_bytes / 1e3:.1f} kB" if num_bytes < 1e6 else f"{num_bytes / 1e6:,.1f} MB"


def relative_path(path: Path) -> Path:
    """Return `path` relative to the working directory if it is inside it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def short_source(source: str) -> str:
    """Return the name of a data source for a picture: absolute paths in it without their folders."""
    return " ".join(Path(word).name if Path(word).is_absolute() else word for word in source.split(" "))


def escape_markdown(text: str) -> str:
    """Return text, such as the name of a class, so that Markdown shows it as it is, also in a table."""
    return re.sub(r"([\\`*_|<>\[\]&])", r"\\\1", text)


def format_interval(interval: Sequence[float]) -> str:
    """Format a share with its interval in percent: 71.7 [70.6, 72.9]; a dash without an observation.

    An interval without width, such as that of the F1 score of a class that is never predicted, is omitted.
    """
    if list(interval) == [0, 0, 1]:  # a share of no faces
        return "-"
    value, lower, upper = (100 * bound for bound in interval)
    return f"{value:.1f} [{lower:.1f}, {upper:.1f}]" if lower < upper else f"{value:.1f}"


def format_percent(share: float | None) -> str:
    """Format a share in percent; a dash for None."""
    return "-" if share is None else f"{100 * share:.1f}"


def format_loss(interval: Sequence[float | None]) -> str:
    """Format a loss with its interval, if it has one: 1.216 [1.184, 1.248]."""
    known = [f"{value:.3f}" for value in interval if value is not None]
    return "{} [{}, {}]".format(*known) if len(known) == 3 else " ".join(known) or "-"


def format_robustness(robustness: Mapping[str, Any]) -> str:
    """Format the mean accuracy over corruptions, also relative to the accuracy on uncorrupted faces."""
    accuracy, uncorrupted = robustness["mean_corruption_accuracy"], robustness["uncorrupted_accuracy"][0]
    relative = format_percent(robustness["relative"])
    return f"{format_percent(accuracy)} %, {relative} % of the {format_percent(uncorrupted)} % on uncorrupted faces"


def format_mean_std(values: Sequence[float], scale: float = 100) -> str:
    """Format the mean and standard deviation (over n - 1) of seeds, by default in percent: 65.9 ± 0.3."""
    scaled = [scale * value for value in values]
    return f"{mean(scaled):.1f}" + (f" ± {stdev(scaled):.1f}" if len(scaled) > 1 else "")
