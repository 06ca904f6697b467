"""The one exception that means: the input is at fault, not the program."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


class UserError(Exception):
    """Something given is missing or wrong; the message says what was found, what was expected and what to do.

    Entry points print the message alone, without a traceback, and exit with status 2.
    """


def listing(lines: Sequence[str], shown: int = 20) -> str:
    """The first lines, each on a line of its own, and how many more there are: for the end of a message."""
    more = [f"and {len(lines) - shown} more"] if len(lines) > shown else []
    return "".join(f"\n  {line}" for line in [*lines[:shown], *more])


REFUSALS = (
    *(TypeError, ValueError, LookupError, AttributeError),
    *(ArithmeticError, AssertionError, RuntimeError, MemoryError),
)
"""What constructors raise at settings that are none."""


class Stopped(Exception):
    """A signal ended the run, which left a checkpoint behind."""

    def __init__(self, signum: int, checkpoint: Path) -> None:
        super().__init__(f"{signal.Signals(signum).name}: stopped, everything so far is in {checkpoint}.")
        self.signum = signum


class Pruned(Exception):
    """A run fell behind the others of its study."""

    def __init__(self, epoch: int, score: float) -> None:
        super().__init__(f"stopped after {epoch + 1} epochs: {score:.4f} is behind the study's other runs")
        self.epoch, self.score = epoch, score
