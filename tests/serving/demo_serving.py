"""The demo's server, in a thread of the test's own process or in one of its own, and how it is asked."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from emotion.demo import listening
from emotion.serving.server import server
from emotion.serving.session import Looker
from tests.pictures import packed, scene

TWO = packed(scene((50, 100, 240), (400, 200, 160)))
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


class Started(NamedTuple):
    """A demo of its own."""

    port: int
    pid: int


@contextmanager
def started(folder: Path, *overrides: str) -> Iterator[Started]:
    """`python -m emotion.demo` in a folder, which says nothing until it is stopped, and then with success."""
    command = [sys.executable, "-m", "emotion.demo", "port=0", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (
        (folder / "said").open("w+") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment, cwd=folder) as child,
    ):
        assert child.stdout
        try:
            address = re.search(r"http://127.0.0.1:(\d+)/", child.stdout.readline())
            assert address, (folder / "said").read_text()
            yield Started(int(address[1]), child.pid)
        finally:
            child.terminate()
        assert child.wait(20) == 143
        assert not (words := (folder / "said").read_text()), words


def ask(
    port: int, body: bytes | None = TWO, path: str = "/api/look", headers: dict[str, str] | None = None
) -> tuple[int, Any, dict[str, str]]:
    """Status, JSON or text, and headers of an answer."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET" if body is None else "POST", path, body, headers or {})
        answer = connection.getresponse()
        told, content = {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        is_json = told.get("content-type") == "application/json"
        return answer.status, json.loads(content) if is_json else content.decode(), told
