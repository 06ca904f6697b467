"""Numbers, paths and durations as text."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console


def console() -> Console:
    """For tables: as wide as the terminal, and where there is none wide enough for ours."""
    return Console(width=None if sys.stdout.isatty() else 120)


def duration(seconds: float) -> str:
    """17.3s, 4m05s or 1h42m."""
    whole = int(seconds)
    if seconds < 100:
        return f"{seconds:.1f}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 6000 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def near(path: Path) -> Path:
    """`path` as a person in the working directory would write it: relative where it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def spread(figure: list[float]) -> str:
    """A share with its 95 % interval, in per cent: 71.7 [70.6, 72.9]."""
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * value for value in figure))


def share(figure: float | None) -> str:
    """A share in per cent, or a dash where there were no faces."""
    return "-" if figure is None else f"{100 * figure:.1f}"


def loss(figure: Sequence[float | None]) -> str:
    """A loss with its interval: 1.216 [1.184, 1.248]."""
    known = [f"{value:.3f}" for value in figure if value is not None]
    return "{} [{}, {}]".format(*known) if len(known) == 3 else " ".join(known) or "-"


def of_uncorrupted(found: Mapping[str, Any]) -> str:
    """What is left of the accuracy by all corruptions and severities."""
    mean, whole = found["mean_corruption_accuracy"], found["uncorrupted_accuracy"][0]
    return f"{share(mean)} %, {share(found['relative'])} % of the {share(whole)} % on the faces as they are"


def mean_and_deviation(shares: Sequence[float]) -> str:
    """Shares of several seeds, in per cent: 65.9 ± 0.3, the deviation over n - 1; one of them alone has none."""
    values = 100 * np.asarray(shares)
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")
