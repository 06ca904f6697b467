"""A web server of a folder."""

import base64
import http.server
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Log nothing."""


class _LoginHandler(_Handler):
    """Sends files only to the user "me" with the password "p@ss"."""

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        if self.headers["Authorization"] == f"Basic {base64.b64encode(b'me:p@ss').decode()}":
            return super().send_head()
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="faces"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None


@contextmanager
def serve_folder(folder: Path, *, login: bool = False) -> Iterator[str]:
    """Serve a folder in a thread, with `login` to the user `me:p%40ss`; yields the address."""
    handler = partial(_LoginHandler if login else _Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
