"""Ctrl-C and SIGTERM end a verb, with the statuses that a shell gives to them."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Ending:
    """Ends the process at a signal, and remembers it: an exception that is raised in a library's clean-up gets lost."""

    def __init__(self) -> None:
        self.came: int | None = None

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Raise what ends the process."""
        self.came = signum
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + signum)


@contextmanager
def ending() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM end what is under way, by exceptions, and be remembered."""
    former = {signum: signal.signal(signum, Ending()) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)
