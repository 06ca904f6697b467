"""The parts of the Hugging Face Hub that publishing and downloading use, in memory on a local port."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlparse

import pytest

Files = dict[str, bytes]
TOKEN = "hf_aTokenThatMustStaySecret"


class Hub(ThreadingHTTPServer):
    """A local Hub.

    Attributes:
        repos: Commits of each repository, each with all its files.
        sizes: File sizes to report instead of the true ones.
        requests: Method and path of every request.
        tokens: Authorization headers.
        faults: Status and headers to answer with, by a part of `METHOD /path`.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, list[Files]] = {}
        self.large: Files = {}
        self.sizes: dict[str, int] = {}
        self.requests: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()
        self.faults: dict[str, tuple[int, dict[str, str]]] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, repo: str, **files: bytes) -> None:
        """Commit files, with the last `_` of each name replaced by a dot."""
        named = {".".join(name.rsplit("_", 1)): content for name, content in files.items()}
        self.repos.setdefault(repo, []).append(named)

    def downloaded(self) -> set[str]:
        """Return the names of the files whose content was requested."""
        return {path.rpartition("/")[2] for method, path in self.requests if method == "GET" and "/resolve/" in path}


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        hub, path = self.server, unquote(urlparse(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.requests.append((self.command, path))
        hub.tokens.add(self.headers.get("Authorization"))
        for part, (status, headers) in hub.faults.items():
            if part in f"{self.command} {path}":
                return self._send({"error": "it is a fault"}, status, headers)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._send_file(*match.groups())
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/(.+))?", path):
            return self._send_info(*match.groups())
        if match := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            return self._commit(match[1])
        if path.startswith("/large/"):
            hub.large[path.removeprefix("/large/")] = self.body
            return self._send({})
        request = json.loads(self.body or b"{}")
        if path == "/api/repos/create":
            repo = f"{request['organization']}/{request['name']}"
            exists = repo in hub.repos
            hub.repos.setdefault(repo, [{".gitattributes": b""}])
            return self._send({"url": f"{hub.address}/{repo}"}, 409 if exists else 200)
        if path.endswith("/objects/batch"):
            objects = [
                entry | {"actions": {"upload": {"href": f"{hub.address}/large/{entry['oid']}"}}}
                for entry in request["objects"]
            ]
            return self._send({"objects": objects})
        if "/preupload/" in path:
            modes = {
                entry["path"]: "lfs" if entry["path"].endswith((".safetensors", ".onnx")) else "regular"
                for entry in request["files"]
            }
            files = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            return self._send({"files": files})
        return self._send({"name": "somebody", "errors": [], "warnings": []})  # whoami-v2, validate-yaml

    def _revision(self, repo: str, revision: str | None) -> tuple[str, Files] | None:
        commits = {f"{number:040x}": files for number, files in enumerate(self.server.repos.get(repo, []), start=1)}
        sha = list(commits)[-1] if commits and revision in (None, "main") else revision or ""
        return (sha, commits[sha]) if sha in commits else None

    def _send_info(self, repo: str, revision: str | None) -> None:
        commit = self._revision(repo, revision)
        if not commit:
            code = "RevisionNotFound" if repo in self.server.repos else "RepoNotFound"
            return self._send({"error": "nothing here"}, 404, {"X-Error-Code": code})
        sizes = {name: self.server.sizes.get(name, len(content)) for name, content in commit[1].items()}
        files = [{"rfilename": name, "size": size} for name, size in sizes.items()]
        return self._send({"id": repo, "sha": commit[0], "siblings": files, "private": False, "tags": []})

    def _send_file(self, repo: str, revision: str, name: str) -> None:
        commit = self._revision(repo, revision)
        if not commit or name not in commit[1]:
            return self._send({}, 404, {"X-Error-Code": "EntryNotFound"})
        content = commit[1][name]
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return self._send(content, 200, {"X-Repo-Commit": commit[0], "ETag": etag})

    def _commit(self, repo: str) -> None:
        files = dict(self.server.repos[repo][-1])
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.server.repos[repo].append(files)
        return self._send({"commitUrl": f"{self.server.address}/{repo}/commit/1", "commitOid": "1" * 40})

    def _send(self, answer: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run a Hub and point huggingface_hub, which has already read its environment, to it and to an empty cache."""
    with Hub() as hub:
        Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
        settings = {
            "ENDPOINT": hub.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(Path("hub_cache").absolute()),
            "HF_TOKEN_PATH": str(Path("no_token").absolute()),
        }
        for name, value in settings.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub
        hub.shutdown()


def environment(hub: Hub) -> dict[str, str]:
    """Return the same settings for a child process."""
    return {"HF_ENDPOINT": hub.address, "HF_HOME": "hf", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
