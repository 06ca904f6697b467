"""Connections that do not wait for their clients for ever, nor for many at once."""

import asyncio
from contextlib import suppress
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

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
