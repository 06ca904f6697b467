"""The demo under load: python -m emotion.bench measure=demo [seconds=60] [clients=8].

`clients` clients send the same JPEG of 640x480 pixels with two synthetic faces to a server in its own process, each as
soon as it has the previous answer.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException

from emotion.benchmarks.config import BenchConfig
from emotion.benchmarks.measurement import BenchResult, Measurement, memory
from emotion.errors import UserError

COMMAND = [sys.executable, "-m", "emotion.demo", "port=0", "limits.rate_limit=null"]
WARM_UP_SECONDS = 3
MAX_CLIENTS = 16
"""The length of the server's queue."""


def run(config: BenchConfig) -> BenchResult:
    """Measure answers per second, latency, errors, and the server's memory after a warm-up and at the end.

    Raises:
        UserError: A setting is invalid, or the server does not start or answers no request.
    """
    import numpy as np

    clients, seconds = config.clients, config.seconds
    if not 1 <= clients <= MAX_CLIENTS:
        raise UserError(f"clients={clients}: expected 1 to {MAX_CLIENTS}, the length of the server's queue.")
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as server:
        try:
            port, image = _read_port(server), render_image()
            with ThreadPoolExecutor(clients) as pool:
                _send(pool, clients, port, image, min(WARM_UP_SECONDS, seconds))
                warm, started = memory(server.pid)["RssAnon"], time.perf_counter()
                responses = _send(pool, clients, port, image, seconds)
                elapsed, end = time.perf_counter() - started, memory(server.pid)["RssAnon"]
        finally:
            server.terminate()
    latencies = [response for response in responses if isinstance(response, float)]
    errors = [response for response in responses if isinstance(response, str)]
    if not latencies:
        found = f"all {len(errors)} requests failed, the first with {errors[0]}" if errors else "no request was sent"
        raise UserError(f"measure=demo: {found}; expected answers within seconds={seconds:g}. Give it more time.")
    p50, p95 = (1000 * np.percentile(latencies, (50, 95))).tolist()
    rate = len(latencies) / elapsed
    details = {
        "clients": clients,
        "seconds": elapsed,
        "answers": len(latencies),
        "answers_per_second": rate,
        "p50_ms": p50,
        "p95_ms": p95,
        "errors": errors,
        "memory_mb": {"warm": warm, "end": end},
        "status": server.returncode,
    }
    measurements = [
        Measurement(f"demo, {clients} clients", "answers/s", rate),
        Measurement("95th percentile of the latency", "ms", p95),
        Measurement("failed requests", "share", len(errors) / max(1, len(errors) + len(latencies))),
        Measurement("memory of the server", "MB", end, "after warm-up", warm),
    ]
    return BenchResult(details, measurements)


def _read_port(server: "subprocess.Popen[str]") -> int:
    assert server.stdout
    match = re.search(r"http://[^ ]*:(\d+)/", server.stdout.readline())
    if match is None:
        raise UserError("The demo did not start; see the output of python -m emotion.demo.")
    return int(match[1])


def render_image() -> bytes:
    """Return a JPEG of a gray wall with two synthetic faces that the detector finds."""
    from io import BytesIO

    import numpy as np
    from PIL import Image

    from emotion.data.readers.synthetic import render_faces

    faces = render_faces(np.repeat(np.arange(7), 10).astype(np.uint8), np.random.default_rng(0))[[31, 0]]
    image = Image.new("L", (640, 480), 128)
    for face, (left, top, side) in zip(faces, ((50, 100, 240), (400, 200, 160)), strict=True):
        image.paste(Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC), (left, top))
    file = BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=92)
    return file.getvalue()


def _send(pool: ThreadPoolExecutor, clients: int, port: int, image: bytes, seconds: float) -> list[float | str]:
    """Send images from all clients for `seconds` seconds; return the latency in seconds or the error of each."""
    end = time.perf_counter() + seconds
    by_client = pool.map(lambda _: list(_client(port, image, end)), range(clients))
    return [response for responses in by_client for response in responses]


def _client(port: int, image: bytes, end: float) -> Iterator[float | str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    while (started := time.perf_counter()) < end:
        try:
            connection.request("POST", "/api/predict", image)
            response = connection.getresponse()
            content = json.loads(response.read())
        except (OSError, HTTPException, ValueError) as error:
            yield f"{type(error).__name__}: {error}"
            connection.close()
            continue
        if response.status == 200 and len(content["faces"]) == 2:
            yield time.perf_counter() - started
        else:
            yield f"{response.status}: {content.get('error', 'expected two faces')}"
    connection.close()
