"""Serve a web page that classifies faces in images and the camera: python -m emotion.demo [checkpoint=RUN]."""

import errno
import math
import socket
import sys
import webbrowser
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from emotion.cli import verb
from emotion.config.compose import is_int_at_least
from emotion.config.typed import ACCELERATORS, check_choices, typed
from emotion.errors import UserError, missing_extra
from emotion.runtime.announce import announce_torch
from emotion.serving.limits import Limits


@dataclass(frozen=True)
class DemoConfig:
    """The settings of conf/demo.yaml."""

    data_dir: str
    cache_dir: str
    detector: dict[str, Any]
    checkpoint: Any
    tta: str | None
    accelerator: str
    min_confidence: float
    host: str
    port: int
    allowed_hosts: list[str]
    open_browser: bool
    limits: Limits


def demo(cfg: DictConfig) -> None:
    """Serve the page until a signal arrives.

    Raises:
        UserError: A setting or the checkpoint is invalid, the port is in use, or starlette or uvicorn is not installed.
    """
    config = typed(cfg, DemoConfig)
    _check(config)
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise missing_extra("the demo", error.name, "demo") from error
    from emotion.inference.backends import SYNTHETIC_WARNING, load_backend

    with listen(config.host, config.port) as listener:
        address, port = listener.getsockname()[:2]
        backend = load_backend(config.checkpoint, config.tta, config.accelerator, announce_torch)
        from emotion.config.instantiate import instantiate  # slow imports, after the checkpoint was found
        from emotion.inference.predictor import Predictor
        from emotion.serving.guard import is_loopback
        from emotion.serving.server import create_server
        from emotion.serving.session import Session

        session = Session(
            Predictor(backend, instantiate(config.detector), config.min_confidence), config.limits.megapixels
        )
        local = is_loopback(address)
        server = create_server(session, config.host, config.allowed_hosts, config.limits, local)
        url = f"http://{_url_host(config.host)}:{port}/"
        print(f"{backend.name} runs at {url} (Ctrl-C stops it)", flush=True)
        if backend.is_synthetic:
            print(SYNTHETIC_WARNING.format(name=backend.name), file=sys.stderr)
        if not local:
            print(
                f"warning: host={config.host}: everyone on the network can use the page. Browsers open the camera only "
                f"on this machine, or over https.",
                file=sys.stderr,
            )
        if config.open_browser:
            webbrowser.open(url)
        with suppress(KeyboardInterrupt):  # the intended way to stop
            server.run([listener])


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        UserError: The port is in use or not permitted, or the host is not an address of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port={port} is in use; choose another, or port=0 for a free one.") from error
        if error.errno == errno.EACCES:
            raise UserError(f"port={port} is not permitted for this user; choose one of at least 1024.") from error
        expected = "expected 127.0.0.1, 0.0.0.0 or another address of this machine"
        raise UserError(f"host={host} cannot be used ({error.strerror}); {expected}.") from error


def _url_host(host: str) -> str:
    """Return the host as a browser on this machine opens it."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{reachable}]" if ":" in reachable else reachable


def _check(config: DemoConfig) -> None:
    check_choices(config, accelerator=ACCELERATORS)
    if not 0 <= config.port <= 65535:
        raise UserError(f"port={config.port}: expected an integer up to 65535; 0 chooses a free port.")
    if not config.host:
        raise UserError(f"host={config.host}: expected an address of this machine, such as 127.0.0.1.")
    for name in ("max_queue", "connections"):
        if not is_int_at_least(value := getattr(config.limits, name), 1):
            raise UserError(f"limits.{name}={value}: expected an integer of at least 1.")
    for name in ("megabytes", "megapixels", "rate_limit", "timeout"):
        value = getattr(config.limits, name)
        if not (value is None and name == "rate_limit") and not (value > 0 and math.isfinite(value)):
            raise UserError(f"limits.{name}={value:g}: expected a number above 0.")


@verb("demo", positional="checkpoint")
def main(cfg: DictConfig) -> None:
    """Serve."""
    demo(cfg)


if __name__ == "__main__":
    main()
