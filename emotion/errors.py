"""Exceptions of this package."""

import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path


class UserError(Exception):
    """The user's input is missing or wrong; the message states what was found, what was expected and what to do.

    Entry points print the message without a traceback and exit with status 2.
    """


def missing_extra(use: str, package: str | None, extra: str) -> UserError:
    """Return the error for the package of an extra that is not installed; `use` is what needs it."""
    return UserError(f"{use} needs {package}, which is not installed: pip install 'emotion[{extra}]'.")


def require_extra(use: str, extra: str, *packages: str) -> None:
    """Raise UserError, without importing anything, if a package of an extra is not installed."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise missing_extra(use, missing[0], extra)


class Stopped(Exception):
    """A signal ended the run after it saved a checkpoint."""

    def __init__(self, signum: int, checkpoint: Path) -> None:
        super().__init__(f"{signal.Signals(signum).name}: stopped, the training state is saved in {checkpoint}.")
        self.signum = signum


class Pruned(Exception):
    """The study's pruner stopped the run."""

    def __init__(self, epochs: int, score: float) -> None:
        super().__init__(f"pruned after {counted(epochs, 'epoch')}: {score:.4f} is worse than the study's other runs")
        self.epochs, self.score = epochs, score


REFUSALS = (
    *(TypeError, ValueError, LookupError, AttributeError),
    *(ArithmeticError, AssertionError, RuntimeError, MemoryError),
)
"""Exceptions that constructors raise for invalid settings."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the error's type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def counted(number: int, noun: str) -> str:
    """Return `1 epoch` or `2 epochs`, `1 class` or `2 classes`."""
    plural = "es" if noun.endswith(("ss", "tch", "sh", "x")) else "s"
    return f"{number:,} {noun}{plural * (number != 1)}"


def first_few(items: Sequence[str], limit: int, separator: str = ", ") -> str:
    """Join the first `limit` items and add the number of the others: `a, b and 3 more`."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return separator.join(items[:limit]) + more


def listing(lines: Sequence[str], limit: int = 20) -> str:
    """Return the first `limit` lines, each on its own line, and the number of the others, to end a message."""
    more = [f"and {len(lines) - limit} more"] if len(lines) > limit else []
    return "".join(f"\n  {line}" for line in [*lines[:limit], *more])


def shortened(text: str, length: int) -> str:
    """Return text for a narrow place: at most `length` characters, with an ellipsis in the middle if it is longer."""
    tail = (length - 1) // 2
    return text if len(text) <= length else f"{text[: length - 1 - tail]}…{text[-tail:]}"
