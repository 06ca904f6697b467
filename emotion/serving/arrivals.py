"""Pictures that are on their way in: how large one may be, how long it may take, how much all may hold together."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from starlette.requests import Request

AT_ONCE = 4  # times the largest picture is what all of them may hold


class Refused(Exception):
    """A request that gets no answer but a status, a sentence and perhaps headers."""

    def __init__(self, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(why)
        self.status, self.headers = status, headers


class Arrivals:
    """Takes in the bodies of requests.

    Args:
        most: bytes of one.
        seconds: in which it is to be here.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self.most, self.seconds = most, seconds
        self.held = 0
        self.arriving: dict[asyncio.Timeout, None] = {}  # the first to begin first

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytearray]:
        """What a request holds, for as long as it is needed.

        Raises:
            Refused: it is a form or too long, which is said before any of it is read; it takes too long to come, or
                longest of all when there is no room for more.
        """
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            raise Refused(400, "This is a form; expected the bytes of a picture and nothing else.")
        told = request.headers.get("content-length", "")
        if told.isdecimal() and int(told) > self.most:
            raise self._too_long()
        content = bytearray()
        try:
            async with asyncio.timeout(self.seconds) as limit:
                await self._fill(content, request, limit)
            yield content
        except TimeoutError as error:
            raise Refused(408, "The picture took too long to arrive.") from error
        finally:
            self.held -= len(content)

    async def _fill(self, content: bytearray, request: Request, limit: asyncio.Timeout) -> None:
        self.arriving[limit] = None
        try:
            async for part in request.stream():
                content += part
                self.held += len(part)
                if len(content) > self.most:
                    raise self._too_long()
                if self.held > AT_ONCE * self.most and self.arriving:
                    longest = next(iter(self.arriving))
                    del self.arriving[longest]
                    longest.reschedule(asyncio.get_running_loop().time())
        finally:
            self.arriving.pop(limit, None)

    def _too_long(self) -> Refused:
        return Refused(413, f"The file is too large; expected at most {self.most / 1e6:g} MB.")
