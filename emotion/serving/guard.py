"""Who may ask the demo's server, how often, and what every answer tells the browser to forbid."""

import asyncio
import ipaddress
import math
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, ClassVar
from urllib.parse import urlsplit

import h11
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

REMEMBERED = 4096  # addresses
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Answers nobody who calls the server by a foreign name, nor a page of another site; see `HEADERS` besides.

    A foreign page could have its own name lead to this machine (DNS rebinding), so that names are compared; an address
    in digits cannot be made to lead anywhere else. Whoever is answered before all of the request is there is told that
    no more of it will be read.

    Args:
        app: what answers everybody else.
        host: at which the server listens.
        hosts: further names that are its own.
        local: only this machine can reach it.
    """

    def __init__(self, app: ASGIApp, host: str, hosts: Iterable[str], local: bool) -> None:
        self.app, self.local = app, local
        own = [host, "localhost", *hosts, *([] if local else [socket.gethostname()])]
        self.names = {name.lower().rstrip(".") for name in own}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse, or let pass."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        headers = Headers(scope=scope)
        sending = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers

        async def receive_noted() -> Message:
            nonlocal sending
            message = await receive()
            sending = message.get("more_body", False)
            return message

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS | ({"Connection": "close"} if sending else {}))
            await send(message)

        app: ASGIApp = self.app
        if not self._is_own(headers.getlist("host")):
            app = JSONResponse({"error": "This server does not go by that name; hosts=[NAME] makes it."}, 421)
        elif not _of_own_page(headers):
            app = JSONResponse({"error": "Pages of other sites may not ask this server."}, 403)
        await app(scope, receive_noted, send_guarded)

    def _is_own(self, hosts: list[str]) -> bool:
        try:
            (host,) = hosts
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return name in self.names or is_loopback(name) or (not self.local and _is_address(name))


def _of_own_page(headers: Headers) -> bool:
    """Whether a request is from the page itself, the address bar or a program; browsers say which it is."""
    origin = headers.get("origin")
    if origin is not None and origin not in (f"http://{headers['host']}", f"https://{headers['host']}"):
        return False
    return headers.get("sec-fetch-site", "none") in ("none", "same-origin") or headers.get("sec-fetch-mode") == (
        "navigate"  # a link to the page may stand anywhere
    )


def is_loopback(name: str) -> bool:
    """Whether an address in digits is this machine's to itself."""
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Allowance:
    """So many turns a second for each address, twice as many in one go after a pause; None for any number.

    Args:
        per_second: for each address.
        clock: seconds.
    """

    def __init__(self, per_second: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second, self.clock = per_second, clock
        self.most = max(1.0, 2 * (per_second or 0))
        self.left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # turns, when; the latest asked last

    def wait(self, address: str) -> int:
        """0 where it has a turn, which is then taken; else in how many seconds it will have one."""
        if self.per_second is None:
            return 0
        now = self.clock()
        left, then = self.left.pop(address, (self.most, now))
        left = min(self.most, left + (now - then) * self.per_second)
        has_turn = left >= 1
        self.left[address] = (left - has_turn, now)
        if len(self.left) > REMEMBERED:
            self.left.popitem(last=False)
        return 0 if has_turn else math.ceil((1 - left) / self.per_second)


LINGER_SECONDS, LINGER_BYTES = 2, 64 << 20  # in which a client that is still sending can read that it is refused
SENDING = (h11.SEND_BODY, h11.ERROR)


class Punctual(H11Protocol):
    """uvicorn's own, which has no limit to the time in which a request's first lines arrive or its rest is dropped.

    Whoever has sent no whole head of a request so many seconds after connecting, or after the last answer, is hung up
    on. Where as many are connected as may be, whoever has kept us waiting longest makes room for the next. What comes
    after a refusal is dropped unread, for a while.
    """

    seconds: ClassVar[float]
    most: ClassVar[int]
    late: asyncio.TimerHandle | None = None
    dropped = 0
    leaves = False

    @classmethod
    def within(cls, seconds: float, most: int) -> type["Punctual"]:
        """With that many seconds, and that many connections at once."""
        return type(cls.__name__, (cls,), {"seconds": seconds, "most": most})

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401
        """A client has connected."""
        super().connection_made(Lingering(transport, self))  # type: ignore[arg-type]
        self._wait()
        staying = [other for other in self.connections if isinstance(other, Punctual) and not other.leaves]
        if len(staying) > self.most:
            waiting = (other for other in staying if other.is_waiting)
            min(waiting, key=lambda other: other.since).leave()

    def data_received(self, data: bytes) -> None:
        """A client has sent something."""
        if not self.transport.is_closing():
            return super().data_received(data)
        self.dropped += len(data)
        if self.dropped > LINGER_BYTES:
            self.transport.pause_reading()

    def on_response_complete(self) -> None:
        """An answer has gone out."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        if self.late is not None:
            self.late.cancel()
        super().connection_lost(exc)

    @property
    def is_waiting(self) -> bool:
        """For its client to send something."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def leave(self) -> None:
        """Hang up, which takes until the next turn of the loop."""
        self.leaves = True
        self.transport.abort()

    def linger(self) -> None:
        """Hang up soon."""
        self._wait(LINGER_SECONDS)

    def _wait(self, seconds: float | None = None) -> None:
        if self.late is not None:
            self.late.cancel()
        self.since = self.loop.time()
        self.late = self.loop.call_later(self.seconds if seconds is None else seconds, self._hang_up)

    def _hang_up(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete  # whose own time is limited there
        if not answering:
            self.leave()


class Lingering:
    """A transport; closed while its client is still sending, it stays until that has read the answer.

    To close it at once would reset the connection, whereupon most clients see no answer.
    """

    def __init__(self, transport: asyncio.Transport, protocol: Punctual) -> None:
        self.transport, self.protocol = transport, protocol
        self.lingers = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.transport, name)

    def is_closing(self) -> bool:
        """Whether it is closed, or lingers."""
        return self.lingers or self.transport.is_closing()

    def close(self) -> None:
        """Close it, now or later."""
        if self.protocol.conn.their_state not in SENDING or self.transport.is_closing():
            self.transport.close()
        elif not self.lingers:
            self.lingers = True
            with suppress(OSError):  # the client has left
                self.transport.write_eof()
            self.transport.resume_reading()
            self.protocol.linger()
