"""Lines that announce what a command is about to do, and whether standard output is a terminal."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import TextIO

RANK_VARIABLES = ("LOCAL_RANK", "SLURM_PROCID")


def announce(activity: str, file: TextIO | None = None) -> None:
    """Print, from the first process only, an activity that is about to start and takes a while."""
    if all(os.environ.get(name, "0") == "0" for name in RANK_VARIABLES):
        print(f"{activity} ...", file=file, flush=True)


@contextmanager
def announce_if_slow(activity: str, seconds: float = 2.0) -> Iterator[Timer]:
    """Announce an activity, the body of the `with` statement, if it takes longer than `seconds`."""
    timer = Timer(seconds, announce, [activity])
    timer.start()
    try:
        yield timer
    finally:
        timer.cancel()


def announce_torch() -> None:
    """Say on standard error that libraries are loading, unless PyTorch is loaded; it takes ten seconds on two cores."""
    if "torch" not in sys.modules:
        announce("loading libraries", sys.stderr)


def is_terminal() -> bool:
    """Return whether standard output is a terminal, where progress bars make sense."""
    return sys.stdout is not None and sys.stdout.isatty()  # None if it is closed
