"""The demo with its default limits is attacked for a minute while eight clients use it from the same address.

See `tests.promises.attackers`.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from emotion.serving.guard import DRAIN_BYTES
from tests.conftest import ROOT
from tests.counted import Tally
from tests.promises.attackers import GIGABYTE
from tests.promises.memory import peak, reset_peak, resident
from tests.serving.demo_server import DemoProcess, send_request, start_demo

SECONDS, P99 = 60, 0.5
CLIENTS, MAX_PAUSE = 8, 4  # seconds between two requests of a client
MAX_BYTES = 10_000_000  # of an image
BUFFERED = 10_000_000  # bytes that the system may buffer for a connection
PEAK, GROWTH = 150, 25  # megabytes; request bodies may take forty, a decoded image and its scales the rest
FOREIGN = {
    "a foreign host": ({"Host": "evil.example"}, 421),
    "a foreign origin": ({"Origin": "https://evil.example"}, 403),
}


class Answer(NamedTuple):
    """The response to a valid request, and its seconds."""

    status: int
    faces: int
    seconds: float


def client(port: int, number: int, until: float) -> Iterator[Answer]:
    """Send requests with random pauses."""
    rng = random.Random(number)
    while (pause := rng.uniform(0, MAX_PAUSE)) < until - time.monotonic():
        time.sleep(pause)
        start = time.monotonic()
        status, content, _ = send_request(port)
        yield Answer(status, len(content.get("faces", ())), time.monotonic() - start)


def attack_demo(demo: DemoProcess) -> tuple[list[Answer], list[float], dict[str, Any]]:
    """Return the clients' answers, the demo's megabytes (before, halfway, peak, after) and the attackers' responses."""
    for _ in range(3):
        send_request(demo.port)
    memory = [resident(demo.pid)]
    reset_peak(demo.pid)
    until = time.monotonic() + SECONDS
    command = [sys.executable, "-m", "tests.promises.attackers", str(demo.port), str(SECONDS)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as attackers,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        answers = [pool.submit(lambda number: list(client(demo.port, number, until)), n) for n in range(CLIENTS)]
        time.sleep(SECONDS / 2)
        memory.append(resident(demo.pid))
        foreign = {name: send_request(demo.port, None, "/", headers)[0] for name, (headers, _) in FOREIGN.items()}
        responses = json.loads(attackers.communicate()[0])
    memory += [peak(demo.pid), resident(demo.pid)]
    return [answer for one in answers for answer in one.result()], memory, responses | foreign


@pytest.mark.alone
@pytest.mark.hard
@pytest.mark.promise("demo")
def test_the_demo_serves_clients_during_attacks(tally: Tally, tmp_path: Path) -> None:
    with start_demo(tmp_path) as demo:
        answers, (before, halfway, highest, after), responses = attack_demo(demo)
    with tally("a body of 1 GB"):
        assert {status for status, _ in responses["gigabyte"]} == {413}
        assert max(sent for _, sent in responses["gigabyte"]) < BUFFERED < GIGABYTE
    with tally("a body of unknown length"):
        assert {status for status, _ in responses["chunked"]} == {413}
        assert max(sent for _, sent in responses["chunked"]) < MAX_BYTES + DRAIN_BYTES  # read after the answer
    with tally("a form of 10,000 parts"):
        assert {status for status, _ in responses["parts"]} == {400}
    with tally("50 slow connections"):
        assert {status for status, _ in responses["slow"]} <= {0, 408}
        assert max(sent for _, sent in responses["slow"]) < 20  # bytes, one a second
    with tally("response time"):
        seconds = sorted(answer.seconds for answer in answers)
        assert len(seconds) > CLIENTS * SECONDS / MAX_PAUSE  # the mean pause is half of MAX_PAUSE
        assert seconds[int(0.99 * len(seconds))] < P99, seconds[-5:]
    with tally("no errors"):
        assert {(answer.status, answer.faces) for answer in answers} == {(200, 2)}
    with tally("constant memory"):
        assert highest - before < PEAK, f"{before:.0f}, peak {highest:.0f} MB"
        assert after - halfway < GROWTH, f"{halfway:.0f}, then {after:.0f} MB"
    for name, (_, status) in FOREIGN.items():
        with tally(name):
            assert responses[name] == status
