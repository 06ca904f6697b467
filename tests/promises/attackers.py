"""Malicious clients in a process of their own: python -m tests.promises.attackers PORT SECONDS.

Each reconnects shortly after it is refused. The output is JSON: for each kind of attack, pairs of the response's status
(0 if the connection was closed without one) and the number of bytes sent before it.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

HEAD = "POST /api/predict HTTP/1.1\r\nHost: localhost\r\n"
BLOCK = bytes(1 << 16)
CHUNK = b"%x\r\n%s\r\n" % (len(BLOCK), BLOCK)
FORM = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 10_000
GIGABYTE = 1 << 30
SLOW = 50
PAUSE = 0.1  # seconds between attacks
Response = tuple[int, int]


async def send(port: int, start: str, body: Iterable[bytes], pause: float = 0) -> Response:
    """Return the status of a request and the bytes of its body sent before it; the rest is sent anyway."""
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
        head = await asyncio.wait_for(answer, 20)
    except OSError:
        head = b""
    writer.transport.abort()
    return int(head.split()[1]) if head else 0, until


async def repeat(until: float, responses: list[Response], *request: Any, **pace: float) -> None:  # noqa: ANN401
    while time.monotonic() < until:
        responses.append(await send(*request, **pace))
        await asyncio.sleep(PAUSE)


async def attack(port: int, seconds: float) -> dict[str, list[Response]]:
    """Run all attacks at once."""
    until = time.monotonic() + seconds
    responses: dict[str, list[Response]] = {"gigabyte": [], "chunked": [], "parts": [], "slow": []}
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
    quick = [repeat(until, responses[kind], port, HEAD + starts[kind], bodies[kind]) for kind in starts]
    slow = [
        repeat(until, responses["slow"], port, HEAD + start, itertools.repeat(b"a"), pause=1)
        for start in ["Content-Length: 500\r\n\r\n", "X-Slow: "] * (SLOW // 2)
    ]
    await asyncio.gather(*quick, *slow)
    return responses


if __name__ == "__main__":
    print(json.dumps(asyncio.run(attack(int(sys.argv[1]), float(sys.argv[2])))))
