"""A web page that looks at pictures and the camera: python -m emotion.demo [checkpoint=RUN] [port=8000]."""

import errno
import socket
import sys
import webbrowser
from typing import Any

from omegaconf import DictConfig, OmegaConf

from emotion.cli import verb
from emotion.config.compose import is_whole
from emotion.errors import UserError

Settings = dict[str, Any]


def demo(cfg: DictConfig) -> None:
    """Serve the page until a signal comes.

    Raises:
        UserError: a setting or the checkpoint is wrong, the port is taken, or starlette and uvicorn are not there.
    """
    settings: Settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    _check(settings)
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; the page needs it: pip install 'emotion[demo]'.") from error
    from emotion.inference.backends import judge_of

    host, limits = settings["host"], settings["limits"]
    with listening(host, settings["port"]) as listener:
        address, port = listener.getsockname()[:2]
        judge = judge_of(settings["checkpoint"], settings["tta"], settings["accelerator"])
        from emotion.config.instantiate import build  # with the rest, which takes seconds, once the checkpoint is there
        from emotion.inference.predictor import Predictor
        from emotion.serving.guard import is_loopback
        from emotion.serving.server import server
        from emotion.serving.session import Looker

        looker = Looker(Predictor(judge, build(settings["detector"])), limits["megapixels"])
        local = is_loopback(address)
        serving = server(looker, host, settings["hosts"], limits, local)
        url = f"http://{_reachable(host)}:{port}/"
        print(f"{judge.name} looks at pictures at {url} (Ctrl-C stops it)", flush=True)
        if not local:
            everybody = f"warning: host={host}: everybody who reaches this machine over the network can use the page."
            print(everybody, "Browsers open the camera only on this machine itself, or over https.", file=sys.stderr)
        if settings["open_browser"]:
            webbrowser.open(url)
        serving.run([listener])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        UserError: the port is taken or not ours to take, or the host is no address of this machine.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(place[:2], family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port={port} is in use; give another, or port=0 for any free one.") from error
        if error.errno == errno.EACCES:
            raise UserError(f"port={port} may not be taken by this user; give one from 1024 on.") from error
        expected = "expected 127.0.0.1, 0.0.0.0 or another address of this machine"
        raise UserError(f"host={host} cannot be listened at ({error.strerror}); {expected}.") from error


def _reachable(host: str) -> str:
    """As the address bar of a browser on this machine takes it."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{here}]" if ":" in here else here


def _check(settings: Settings) -> None:
    if not is_whole(settings["port"], 0) or settings["port"] > 65535:
        raise UserError(f"port={settings['port']}: expected a whole number up to 65535; 0 is any free port.")
    if not isinstance(settings["host"], str) or not settings["host"]:
        raise UserError(f"host={settings['host']}: expected an address of this machine, such as 127.0.0.1.")
    hosts, limits = settings["hosts"], settings["limits"]
    if not isinstance(hosts, list) or not all(isinstance(name, str) for name in hosts):
        raise UserError(f"hosts={hosts}: expected names, such as [demo.example.org].")
    for name in ("waiting", "connections"):
        if not is_whole(limits[name], 1):
            raise UserError(f"limits.{name}={limits[name]}: expected a whole number of 1 or more.")
    for name in ("megabytes", "megapixels", "per_second", "seconds"):
        anything = name == "per_second" and limits[name] is None
        number = isinstance(limits[name], int | float) and not isinstance(limits[name], bool)
        if not anything and not (number and 0 < limits[name] < float("inf")):
            raise UserError(f"limits.{name}={limits[name]}: expected a number above 0.")


@verb("demo")
def main(cfg: DictConfig) -> None:
    """Serve."""
    demo(cfg)


if __name__ == "__main__":
    main()
