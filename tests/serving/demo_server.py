"""Run the demo's server in a thread or in its own process, and send requests to it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from emotion.demo import listen
from emotion.serving.limits import Limits
from emotion.serving.server import create_server
from emotion.serving.session import Session
from tests.images import encode_image, scene

TWO = encode_image(scene((50, 100, 240), (400, 200, 160)))
LIMITS = Limits(megabytes=1, megapixels=40, rate_limit=None, max_queue=16, connections=64, timeout=10)


@contextmanager
def serve(
    session: Session, local: bool = True, allowed_hosts: tuple[str, ...] = (), **limits: float | None
) -> Iterator[int]:
    """Serve in a thread; yields the port."""
    with listen("127.0.0.1", 0) as listener:
        server = create_server(session, "127.0.0.1", allowed_hosts, replace(LIMITS, **limits), local)
        thread = Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


class DemoProcess(NamedTuple):
    """A demo in its own process."""

    port: int
    pid: int


@contextmanager
def start_demo(folder: Path, *overrides: str) -> Iterator[DemoProcess]:
    """Run `python -m emotion.demo` in a folder; it must exit silently, with status 143, on SIGTERM."""
    command = [sys.executable, "-m", "emotion.demo", "port=0", *overrides]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    log = folder / "stderr"
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=env, cwd=folder) as demo,
    ):
        assert demo.stdout
        try:
            url = re.fullmatch(r"FastCNN runs at http://127.0.0.1:(\d+)/ .*\n", demo.stdout.readline())
            assert url, log.read_text()
            yield DemoProcess(int(url[1]), demo.pid)
        finally:
            demo.terminate()  # not SIGINT, which shells let background jobs ignore
        assert demo.wait(20) == 143
        assert log.read_text() == ""


def send_request(
    port: int, body: bytes | None = TWO, path: str = "/api/predict", headers: dict[str, str] | None = None
) -> tuple[int, Any, dict[str, str]]:
    """Return the response's status, its JSON or text, and its headers."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET" if body is None else "POST", path, body, headers or {})
        response = connection.getresponse()
        received = {name.lower(): value for name, value in response.getheaders()}
        content = response.read()
        is_json = received.get("content-type") == "application/json"
        return response.status, json.loads(content) if is_json else content.decode(), received
