"""Protection of the demo's server: accepted host names and origins, security headers, and bounds on slow clients."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

SECURITY_HEADERS = {
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
DRAIN_SECONDS, DRAIN_BYTES = 2, 64 << 20
MAX_BODIES = 4  # total size of all bodies being received, in bodies of maximum size


class Guard:
    """ASGI middleware that rejects foreign host names and pages of other sites, and adds `SECURITY_HEADERS`.

    Host names are checked because a foreign page can point its own name at this machine (DNS rebinding); numeric
    addresses cannot be redirected. If only this machine can reach the server (`local`), its own name is not accepted.
    """

    def __init__(self, app: ASGIApp, host: str, allowed_hosts: Iterable[str], local: bool) -> None:
        self.app, self.local = app, local
        names = [host, "localhost", *allowed_hosts, *([] if local else [socket.gethostname()])]
        self.host_names = {name.lower().rstrip(".") for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        headers = Headers(scope=scope)
        more_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers

        async def tracked_receive() -> Message:
            nonlocal more_body
            message = await receive()
            more_body = message.get("more_body", False)
            return message

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS | ({"Connection": "close"} if more_body else {}))
            elif more_body and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await _drain(receive)
                message = {"type": "http.response.body"}
            await send(message)

        app: ASGIApp = self.app
        if not self._is_own_host(headers.getlist("host")):
            app = JSONResponse({"error": "Unknown host name; allowed_hosts=[NAME] allows it."}, 421)
        elif not _is_own_page(headers):
            app = JSONResponse({"error": "Requests from pages of other sites are not allowed."}, 403)
        await app(scope, tracked_receive, guarded_send)

    def _is_own_host(self, hosts: list[str]) -> bool:
        try:
            (host,) = hosts
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return name in self.host_names or is_loopback(name) or (not self.local and _is_address(name))


class TimedProtocol(H11Protocol):
    """uvicorn's HTTP protocol, with its keep-alive timeout also for the head of a request.

    uvicorn itself waits forever for the first request, and stops the timeout at the first byte of the next one.
    """

    head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401
        """Start waiting for the first head."""
        super().connection_made(transport)
        self._start_timer()

    def on_response_complete(self) -> None:
        """Start waiting for the next head."""
        super().on_response_complete()
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        if self.head_timer:
            self.head_timer.cancel()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        if self.head_timer:
            self.head_timer.cancel()
        self.head_timer = self.loop.call_later(self.timeout_keep_alive, self._on_timeout)

    def _on_timeout(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


class BodyReader:
    """Read request bodies of at most `max_bytes` within `timeout` seconds, and bound the total size of all bodies."""

    def __init__(self, max_bytes: int, timeout: float) -> None:
        self.max_bytes, self.timeout = max_bytes, timeout
        self.total_bytes = 0
        self.deadlines: list[asyncio.Timeout] = []  # of incomplete bodies, the oldest first

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytearray]:
        """Return the body, which counts towards the total until the context is left.

        Raises:
            HTTPException: The body is a form, too large or too slow, or is the oldest when the total exceeds its limit.
        """
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            raise HTTPException(400, "Found a form; expected the bytes of an image as the body.")
        too_large = HTTPException(413, f"The file is too large; expected at most {self.max_bytes / 1e6:g} MB.")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.max_bytes:
            raise too_large
        body = bytearray()
        deadline = asyncio.timeout(self.timeout)
        self.deadlines.append(deadline)
        try:
            async with deadline:
                async for chunk in request.stream():
                    body += chunk
                    self.total_bytes += len(chunk)
                    if len(body) > self.max_bytes:
                        raise too_large
                    if self.total_bytes > MAX_BODIES * self.max_bytes and self.deadlines:
                        self.deadlines.pop(0).reschedule(asyncio.get_running_loop().time())
            self._forget(deadline)
            yield body
        except TimeoutError as error:
            raise HTTPException(408, "The image took too long to arrive.") from error
        finally:
            self._forget(deadline)
            self.total_bytes -= len(body)

    def _forget(self, deadline: asyncio.Timeout) -> None:
        if deadline in self.deadlines:
            self.deadlines.remove(deadline)


def is_loopback(name: str) -> bool:
    """Return whether a host name is a numeric loopback address."""
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_own_page(headers: Headers) -> bool:
    """Return whether a request comes from the demo's page, the address bar or a program, as browsers declare."""
    origin = headers.get("origin")
    if origin is not None and origin not in (f"http://{headers['host']}", f"https://{headers['host']}"):
        return False
    is_same_site = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
    return is_same_site or headers.get("sec-fetch-mode") == "navigate"  # links from other sites are fine


async def _drain(receive: Receive) -> None:
    """Discard the rest of a body after its answer: closing at once would reset the connection and lose the answer."""
    num_bytes = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while num_bytes < DRAIN_BYTES and (message := await receive()).get("more_body", False):
                num_bytes += len(message["body"])
