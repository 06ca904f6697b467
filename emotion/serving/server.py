"""The demo's server: the page, what it says of the network, and what is seen in a picture."""

import asyncio
import sys
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emotion.errors import UserError
from emotion.serving.guard import Allowance, Guard, Punctual
from emotion.serving.session import Looker, NoPicture

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


PAGE = {  # where, the file in web/, its type
    "/": ("index.html", "text/html"),
    "/style.css": ("style.css", "text/css"),
    "/app.js": ("app.js", "text/javascript"),
    "/engine.js": ("engine_server.js", "text/javascript"),
}
STOPPING = 5  # seconds that answers under way have when a signal comes
STAYS = (
    "No picture leaves this machine: pictures go to the program that serves this page, which looks at them and stores "
    "nothing."
)
TRAVELS = (
    "Pictures go over the network to the machine that serves this page and nowhere else; it looks at them and stores "
    "nothing."
)


def server(
    looker: Looker, host: str, hosts: Sequence[str], limits: Mapping[str, Any], local: bool = True
) -> uvicorn.Server:
    """The page and its two questions, for `run([listener])`; a signal stops it.

    Args:
        looker: what looks, a picture at a time, in a thread of its own.
        host: at which the listener listens.
        hosts: further names that the server goes by.
        limits: as conf/demo.yaml has them.
        local: only this machine can reach it.
    """
    app = application(
        looker, Middleware(Guard, host=host, hosts=hosts, local=local), limits, STAYS if local else TRAVELS
    )
    config = uvicorn.Config(
        app,
        http=Punctual.within(limits["seconds"], limits["connections"]),
        ws="none",
        proxy_headers=False,  # whoever writes them could be as many addresses as they like
        server_header=False,
        log_config=None,
        log_level="error",  # what is wrong with a request is said to whoever sent it
        access_log=False,
        timeout_graceful_shutdown=STOPPING,
    )
    return uvicorn.Server(config)


def application(looker: Looker, guard: Middleware, limits: Mapping[str, Any], private: str) -> Starlette:
    """The page; GET /api/about; POST /api/look[?map=1] with the bytes of a picture."""
    pool = ThreadPoolExecutor(1, "looker")
    desk = Desk(looker, pool, limits)
    about = looker.about() | {"private": private}

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        pool.shutdown(wait=False, cancel_futures=True)

    async def say(request: Request) -> Response:
        return JSONResponse(about)

    pages = [Route(path, _static(name, kind)) for path, (name, kind) in PAGE.items()]
    questions = [Route("/api/about", say), Route("/api/look", desk.look, methods=["POST"])]
    return Starlette(routes=[*pages, *questions], middleware=[guard], lifespan=lifespan)


class Desk:
    """Takes pictures in, has them looked at one after another, and says no to what is too much."""

    def __init__(self, looker: Looker, pool: ThreadPoolExecutor, limits: Mapping[str, Any]) -> None:
        self.looker, self.pool = looker, pool
        self.arrivals = Arrivals(round(limits["megabytes"] * 1e6), limits["seconds"])
        self.waiting, self.waiting_at_most = 0, limits["waiting"]
        self.allowance = Allowance(limits["per_second"])

    async def look(self, request: Request) -> Response:
        """What is seen in the picture that the request holds."""
        try:
            async with self.arrivals.body(request) as content:
                self._take_turn(request)
                return JSONResponse(await self._seen(content, request.query_params.get("map") == "1"))
        except Refused as error:
            return JSONResponse({"error": str(error)}, error.status, error.headers)
        except NoPicture as error:
            return JSONResponse({"error": str(error)}, 415)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 422)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception as error:
            _log(error)
            return JSONResponse({"error": "The picture could not be looked at; the server says more."}, 500)

    def _take_turn(self, request: Request) -> None:
        """Only whole pictures take one: who sends others keeps nobody at the same address from asking."""
        if wait := self.allowance.wait(request.client.host if request.client else ""):
            raise Refused(429, "Too many pictures at once from you; wait a little.", {"Retry-After": str(wait)})

    async def _seen(self, content: bytearray, with_maps: bool) -> dict[str, Any]:
        if self.waiting > self.waiting_at_most:  # one of them is being looked at
            raise Refused(503, "Too many pictures are waiting; try again in a moment.", {"Retry-After": "1"})
        self.waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self.pool, self.looker.look, content, with_maps)
        finally:
            self.waiting -= 1


def _static(name: str, kind: str) -> Any:  # noqa: ANN401
    content = files("emotion").joinpath("web", name).read_bytes()

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


def _log(error: Exception) -> None:
    """Where it happened and what it was, without its words: they may hold pixels."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    print(f"a picture could not be looked at: {type(error).__name__}\n{frames}", end="", file=sys.stderr, flush=True)
