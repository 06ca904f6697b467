"""The demo under load: python -m emotion.bench measure=demo [seconds=60] [clients=8].

So many clients send the same JPEG of 640 x 480 pixels with two drawn faces to a server of its own process, each the
next one as soon as it has its answer.
"""

import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import Any

from emotion.benchmarks.measurement import Line, Measured, memory
from emotion.errors import UserError

Settings = dict[str, Any]
COMMAND = [sys.executable, "-m", "emotion.demo", "port=0", "limits.rate_limit=null"]
WARM_UP = 3  # seconds, in which memory grows to what the server needs


def bench_demo(settings: Settings) -> Measured:
    """Answers per second, how long they take, errors, and the server's memory after warming up and at the end.

    Raises:
        UserError: the number of clients is wrong, or the server does not start.
    """
    import numpy as np

    clients, seconds = settings["clients"], settings["seconds"]
    if not isinstance(clients, int) or not 1 <= clients <= 16:
        raise UserError(f"clients={clients}: expected a whole number from 1 to 16, which the server lets wait.")
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as server:
        try:
            port, picture = _port(server), _picture()
            with ThreadPoolExecutor(clients) as pool:
                _load(pool, clients, port, picture, min(WARM_UP, seconds))
                before, began = memory(server.pid)["RssAnon"], time.perf_counter()
                waits, errors = _load(pool, clients, port, picture, seconds)
                elapsed, after = time.perf_counter() - began, memory(server.pid)["RssAnon"]
        finally:
            server.terminate()
    p50, p95 = (1000 * np.percentile(waits, (50, 95))).tolist() if waits else (float("nan"),) * 2
    rate = len(waits) / elapsed
    found = {
        "clients": clients,
        "seconds": elapsed,
        "answers": len(waits),
        "answers_per_second": rate,
        "p50_ms": p50,
        "p95_ms": p95,
        "errors": errors,
        "memory_mb": {"warm": before, "end": after},
        "status": server.returncode,
    }
    lines = [
        Line(f"the demo, {clients} clients", "answers/s", rate),
        Line("19 of 20 answers come within", "ms", p95),
        Line("answers that went wrong", "of all", len(errors) / max(1, len(errors) + len(waits))),
        Line("memory of the server", "MB", after, "after warming up", before),
    ]
    return Measured(found, lines)


def _port(server: "subprocess.Popen[str]") -> int:
    assert server.stdout
    said = re.search(r"http://[^ ]*:(\d+)/", server.stdout.readline())
    if said is None:
        raise UserError("The demo did not start; python -m emotion.demo says why.")
    return int(said[1])


def _picture() -> bytes:
    """A wall with two drawn faces that the detector finds."""
    from io import BytesIO

    import numpy as np
    from PIL import Image

    from emotion.data.readers.synthetic import render_faces

    drawn = render_faces(np.repeat(np.arange(7), 10).astype(np.uint8), np.random.default_rng(0))[[31, 0]]
    wall = Image.new("L", (640, 480), 128)
    for face, (left, top, side) in zip(drawn, ((50, 100, 240), (400, 200, 160)), strict=True):
        wall.paste(Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC), (left, top))
    file = BytesIO()
    wall.convert("RGB").save(file, "JPEG", quality=92)
    return file.getvalue()


def _load(
    pool: ThreadPoolExecutor, clients: int, port: int, picture: bytes, seconds: float
) -> tuple[list[float], list[str]]:
    """Seconds that each answer took, and what went wrong, of all clients."""
    until = time.perf_counter() + seconds
    found = list(pool.map(lambda _: _ask(port, picture, until), range(clients)))
    return [wait for waits, _ in found for wait in waits], [error for _, errors in found for error in errors]


def _ask(port: int, picture: bytes, until: float) -> tuple[list[float], list[str]]:
    waits, errors = [], []
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    while (began := time.perf_counter()) < until:
        try:
            connection.request("POST", "/api/predict", picture)
            answer = connection.getresponse()
            told = json.loads(answer.read())
            if answer.status != 200 or len(told["faces"]) != 2:
                errors.append(f"{answer.status}: {told.get('error', 'other faces')}")
                continue
            waits.append(time.perf_counter() - began)
        except (OSError, HTTPException, ValueError) as error:
            errors.append(f"{type(error).__name__}: {error}")
            connection.close()
    connection.close()
    return waits, errors
