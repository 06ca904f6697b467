"""The demo, in a process of its own with its own limits, attacked for a minute while eight people use it.

The attackers come from the same address as everybody else; see `tests.promises.attackers`.
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

from tests.conftest import ROOT
from tests.counted import Tally
from tests.promises.attackers import GIGABYTE
from tests.promises.memory import peak, reset_peak, resident
from tests.serving.demo_serving import Started, ask, started

SECONDS, P99 = 60, 0.5
PEOPLE, LOOKS = 8, 4  # and the most seconds for which one looks at what was found before asking again
LIMIT = 10_000_000  # bytes of a picture
ON_ITS_WAY = 10_000_000  # bytes that a system may hold for a connection
PEAK, GROWTH = 100, 25  # megabytes: the bodies on their way in may hold forty; nothing is to stay
FOREIGN = {
    "a foreign host": ({"Host": "evil.example"}, 421),
    "a foreign origin": ({"Origin": "https://evil.example"}, 403),
}


class Answer(NamedTuple):
    """What somebody was told, and after how many seconds."""

    status: int
    faces: int
    seconds: float


def person(port: int, number: int, until: float) -> Iterator[Answer]:
    """Asks, looks at what was found, and asks again; people do not all begin in the same moment."""
    looks = random.Random(number)
    while (pause := looks.uniform(0, LOOKS)) < until - time.monotonic():
        time.sleep(pause)
        began = time.monotonic()
        status, told, _ = ask(port)
        yield Answer(status, len(told.get("faces", ())), time.monotonic() - began)


def attacked(demo: Started) -> tuple[list[Answer], list[float], dict[str, Any]]:
    """What people were told, the megabytes of the demo before, halfway, at most and after, and what attackers were."""
    for _ in range(3):
        ask(demo.port)
    memory = [resident(demo.pid)]
    reset_peak(demo.pid)
    until = time.monotonic() + SECONDS
    command = [sys.executable, "-m", "tests.promises.attackers", str(demo.port), str(SECONDS)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as attackers,
        ThreadPoolExecutor(PEOPLE) as pool,
    ):
        answers = [pool.submit(lambda number: list(person(demo.port, number, until)), n) for n in range(PEOPLE)]
        time.sleep(SECONDS / 2)
        memory.append(resident(demo.pid))
        foreign = {name: ask(demo.port, None, "/", headers)[0] for name, (headers, _) in FOREIGN.items()}
        told = json.loads(attackers.communicate()[0])
    memory += [peak(demo.pid), resident(demo.pid)]
    return [answer for one in answers for answer in one.result()], memory, told | foreign


@pytest.mark.alone
@pytest.mark.hard
@pytest.mark.promise("demo")
def test_it_answers_honest_people_while_it_is_attacked(tally: Tally, tmp_path: Path) -> None:
    with started(tmp_path) as demo:
        answers, (before, halfway, most, after), told = attacked(demo)
    with tally("a body of 1 GB"):
        assert {status for status, _ in told["gigabyte"]} == {413}
        assert max(sent for _, sent in told["gigabyte"]) < ON_ITS_WAY < GIGABYTE
    with tally("a body of no known length"):
        assert {status for status, _ in told["chunked"]} == {413}
        assert max(sent for _, sent in told["chunked"]) < LIMIT + ON_ITS_WAY
    with tally("a form of 10,000 parts"):
        assert {status for status, _ in told["parts"]} == {400}
    with tally("50 slow connections"):
        assert {status for status, _ in told["slow"]} <= {0, 408}
        assert max(sent for _, sent in told["slow"]) < 20  # bytes, one a second
    with tally("soon"):
        seconds = sorted(answer.seconds for answer in answers)
        assert len(seconds) > PEOPLE * SECONDS / LOOKS  # at half that many seconds from one to the next
        assert seconds[int(0.99 * len(seconds))] < P99, seconds[-5:]
    with tally("no error"):
        assert {(answer.status, answer.faces) for answer in answers} == {(200, 2)}
    with tally("memory flat"):
        assert most - before < PEAK, f"{before:.0f}, at most {most:.0f} MB"
        assert after - halfway < GROWTH, f"{halfway:.0f}, then {after:.0f} MB"
    for name, (_, status) in FOREIGN.items():
        with tally(name):
            assert told[name] == status
