"""Connections that do not wait for their clients for ever."""

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol


class Punctual(H11Protocol):
    """uvicorn's own, which has no limit to the time in which a request's first lines arrive or its rest is dropped.

    Whoever has sent no whole head of a request so many seconds after connecting, or after the last answer, is hung up
    on; so is whoever is still sending what was refused.
    """

    seconds: ClassVar[float]
    late: asyncio.TimerHandle | None = None

    @classmethod
    def within(cls, seconds: float) -> type["Punctual"]:
        """With that many seconds."""
        return type(cls.__name__, (cls,), {"seconds": seconds})

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401
        """A client has connected."""
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        """An answer has gone out."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        if self.late is not None:
            self.late.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self.late is not None:
            self.late.cancel()
        self.late = self.loop.call_later(self.seconds, self._hang_up)

    def _hang_up(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete  # whose own time is limited there
        if not answering:
            self.transport.abort()
