"""The demo's server in a thread of the test's own process, and pictures as they are sent to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from emotion.demo import listening
from emotion.serving.looking import Looker
from emotion.serving.server import server

LIMITS = {"megabytes": 1, "per_second": None, "waiting": 16, "connections": 64, "seconds": 10}


@contextmanager
def serving(looker: Looker, local: bool = True, hosts: tuple[str, ...] = (), **limits: float | None) -> Iterator[int]:
    """The port at which `looker` is asked."""
    with listening("127.0.0.1", 0) as listener:
        running = server(looker, "127.0.0.1", hosts, LIMITS | limits, local)
        thread = Thread(target=running.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            running.should_exit = True
            thread.join()
