"""Clients that mean harm, in a process of their own: python -m tests.promises.attackers PORT SECONDS.

Each begins again a moment after it is refused. Printed is what they were told, as JSON: for each kind of attack a list
of statuses, 0 where the connection was closed without one, and how many bytes had been sent by then.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

HEAD = "POST /api/look HTTP/1.1\r\nHost: localhost\r\n"
BLOCK = bytes(1 << 16)
CHUNK = b"%x\r\n%s\r\n" % (len(BLOCK), BLOCK)
FORM = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 10_000
GIGABYTE = 1 << 30
SLOW = 50
REST = 0.1  # seconds
Told = tuple[int, int]


async def asked(port: int, start: str, body: Iterable[bytes], pause: float = 0) -> Told:
    """The status that a request gets, and the bytes of its body by then; what is left of it is sent all the same."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.create_task(reader.read(16))
    sent = until = 0
    with suppress(OSError):
        writer.write(start.encode())
        for part in body:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
            sent += len(part)
            until = until if answer.done() else sent
            if answer.done() and reader.at_eof():
                break
    try:
        told = await asyncio.wait_for(answer, 20)
    except OSError:
        told = b""
    writer.transport.abort()
    return int(told.split()[1]) if told else 0, until


async def again_and_again(until: float, told: list[Told], *question: Any, **pace: float) -> None:  # noqa: ANN401
    while time.monotonic() < until:
        told.append(await asked(*question, **pace))
        await asyncio.sleep(REST)


async def attack(port: int, seconds: float) -> dict[str, list[Told]]:
    """Everything at once."""
    until = time.monotonic() + seconds
    told: dict[str, list[Told]] = {"gigabyte": [], "chunked": [], "parts": [], "slow": []}
    starts = {
        "gigabyte": f"Content-Length: {GIGABYTE}\r\n\r\n",
        "chunked": "Transfer-Encoding: chunked\r\n\r\n",
        "parts": f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(FORM)}\r\n\r\n",
    }
    bodies = {
        "gigabyte": [BLOCK] * (GIGABYTE // len(BLOCK)),
        "chunked": [CHUNK] * (GIGABYTE // len(BLOCK)),
        "parts": [FORM[place : place + len(BLOCK)] for place in range(0, len(FORM), len(BLOCK))],
    }
    quick = [again_and_again(until, told[kind], port, HEAD + starts[kind], bodies[kind]) for kind in starts]
    slow = [
        again_and_again(until, told["slow"], port, HEAD + start, itertools.repeat(b"a"), pause=1)
        for start in ["Content-Length: 500\r\n\r\n", "X-Slow: "] * (SLOW // 2)
    ]
    await asyncio.gather(*quick, *slow)
    return told


if __name__ == "__main__":
    print(json.dumps(asyncio.run(attack(int(sys.argv[1]), float(sys.argv[2])))))
