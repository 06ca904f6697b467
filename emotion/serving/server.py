"""The demo's server: the page, and predictions for images that are posted to it."""

import asyncio
import os
import sys
import traceback
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.resources import files

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emotion.errors import UserError
from emotion.serving.guard import BodyReader, Guard, TimedProtocol
from emotion.serving.limits import Limits, RateLimiter
from emotion.serving.session import Session, UnsupportedImage

WEB = files("emotion") / "web"
PAGE = {  # path, file in emotion/web, media type
    "/": ("index.html", "text/html"),
    "/style.css": ("style.css", "text/css"),
    "/app.js": ("app.js", "text/javascript"),
    "/engine.js": ("engine_server.js", "text/javascript"),
    "/api/schema.json": ("schema.json", "application/schema+json"),
}
SHUTDOWN_SECONDS = 5  # for requests in progress
MAX_WORKERS = 2  # each holds a decoded image
LOCAL_PRIVACY = "Images stay on this machine. The server processes them in memory and stores nothing."
NETWORK_PRIVACY = (
    "Images are sent over the network to the machine that serves this page, and nowhere else. It processes them in "
    "memory and stores nothing."
)


def create_server(
    session: Session, host: str, allowed_hosts: Sequence[str], limits: Limits, local: bool = True
) -> uvicorn.Server:
    """Create the server for a listener at `host`, to be started by `run([listener])` and stopped by a signal.

    With `local`, only this machine can reach it. For the other settings see conf/demo.yaml.
    """
    routes = Routes(session, limits, LOCAL_PRIVACY if local else NETWORK_PRIVACY)
    app = Starlette(
        routes=[
            *(
                Route(path, Response((WEB / name).read_bytes(), media_type=media_type), methods=["GET"])
                for path, (name, media_type) in PAGE.items()
            ),
            Route("/api/about", routes.about),
            Route("/api/predict", routes.predict, methods=["POST"]),
        ],
        exception_handlers={404: _advise, 405: _advise},
        middleware=[Middleware(Guard, host=host, allowed_hosts=allowed_hosts, local=local)],
        lifespan=routes.lifespan,
    )
    config = uvicorn.Config(
        app,
        http=TimedProtocol,
        ws="none",
        proxy_headers=False,  # clients could choose their address
        server_header=False,
        log_config=None,
        log_level="error",  # invalid requests are answered, not logged
        access_log=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=limits.timeout,  # type: ignore[arg-type]  # uvicorn accepts fractions
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return uvicorn.Server(config)


class Routes:
    """The API: GET /api/about, and POST /api/predict[?map=1] with the bytes of an image.

    `privacy` is the page's sentence on where images go.
    """

    def __init__(self, session: Session, limits: Limits, privacy: str) -> None:
        self.session, self.privacy = session, privacy
        workers = min(MAX_WORKERS, os.cpu_count() or 1) if session.predictor.is_concurrent else 1
        self.workers = ThreadPoolExecutor(workers, "predict")
        self.bodies = BodyReader(round(limits.megabytes * 1e6), limits.timeout)
        self.rate_limiter = RateLimiter(limits.rate_limit)
        self.queue_length, self.max_queue = 0, limits.max_queue

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Stop the workers when the server stops."""
        yield
        self.workers.shutdown(wait=False, cancel_futures=True)

    async def about(self, request: Request) -> Response:
        """Describe the network, and the limit of a request."""
        return JSONResponse(self.session.about() | {"privacy": self.privacy, "max_bytes": self.bodies.max_bytes})

    async def predict(self, request: Request) -> Response:
        """Return the faces of the posted image."""
        try:
            async with self.bodies.read(request) as body:
                self._count(request)
                self.queue_length += 1
                try:
                    with_maps = request.query_params.get("map") == "1"
                    loop = asyncio.get_running_loop()
                    result = await loop.run_in_executor(self.workers, self.session.predict, body, with_maps)
                finally:
                    self.queue_length -= 1
            return JSONResponse(result)
        except HTTPException as error:
            return JSONResponse({"error": error.detail}, error.status_code, error.headers)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 415 if isinstance(error, UnsupportedImage) else 422)
        except ClientDisconnect:
            return Response(status_code=400)  # never read
        except Exception as error:
            _log(error)
            return JSONResponse({"error": "The image could not be processed; see the server's log."}, 500)

    def _count(self, request: Request) -> None:
        """Apply rate and queue limits; only complete bodies count."""
        if wait := self.rate_limiter.wait(request.client.host if request.client else ""):
            raise HTTPException(429, "Too many images from your address; wait a moment.", {"Retry-After": str(wait)})
        if self.queue_length > self.max_queue:  # including the images in progress
            raise HTTPException(503, "The server is busy; try again in a moment.", {"Retry-After": "1"})


async def _advise(request: Request, error: Exception) -> Response:
    status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (404, None)
    path = request.url.path
    found = f"There is nothing at {path}." if status == 404 else f"{path} does not take {request.method}."
    advice = "POST the bytes of an image to /api/predict; /api/schema.json describes the answer."
    return JSONResponse({"error": f"{found} {advice}"}, status, headers)


def _log(error: Exception) -> None:
    """Print the type and traceback, but not the message, which may contain pixels."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    print(f"an image could not be processed: {type(error).__name__}\n{frames}", end="", file=sys.stderr, flush=True)
