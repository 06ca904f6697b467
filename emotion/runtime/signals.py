"""Ctrl-C and SIGTERM end a verb with the exit status that a shell gives them."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class SignalHandler:
    """Raise KeyboardInterrupt or SystemExit at a signal, and remember it: a library's clean-up may swallow them."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        self.signum = signum
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + signum)


@contextmanager
def handle_signals() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into exceptions within the block."""
    previous = {signum: signal.signal(signum, SignalHandler()) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
