"""As much of the Hugging Face Hub as publishing and fetching ask for, over loopback, in memory."""

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
TOKEN = "hf_aTokenThatNobodyMaySee"


class Hub(ThreadingHTTPServer):
    """Repositories by name, each a list of commits of whole contents; what was asked; which answers are faults."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repos: dict[str, list[Files]] = {}
        self.large: Files = {}
        self.sizes: dict[str, int] = {}  # that a file is said to have
        self.asked: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()
        self.faults: dict[str, tuple[int, dict[str, str]]] = {}  # by a part of what is asked: status, headers

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, repo: str, **files: bytes) -> None:
        """A commit of these files, their names' last `_` for a dot."""
        named = {".".join(name.rsplit("_", 1)): content for name, content in files.items()}
        self.repos.setdefault(repo, []).append(named)

    def fetched(self) -> set[str]:
        """Names of the files whose content was asked for."""
        return {path.rpartition("/")[2] for method, path in self.asked if method == "GET" and "/resolve/" in path}


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _answer(self) -> None:
        hub, path = self.server, unquote(urlparse(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.asked.append((self.command, path))
        hub.tokens.add(self.headers.get("Authorization"))
        for part, (status, headers) in hub.faults.items():
            if part in f"{self.command} {path}":
                return self._say({"error": "it is a fault"}, status, headers)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(*found.groups())
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/(.+))?", path):
            return self._described(*found.groups())
        if found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            return self._commit(found[1])
        if path.startswith("/large/"):
            hub.large[path.removeprefix("/large/")] = self.body
            return self._say({})
        asked = json.loads(self.body or b"{}")
        if path == "/api/repos/create":
            repo = f"{asked['organization']}/{asked['name']}"
            known = repo in hub.repos
            hub.repos.setdefault(repo, [{".gitattributes": b""}])
            return self._say({"url": f"{hub.address}/{repo}"}, 409 if known else 200)
        if path.endswith("/objects/batch"):
            places = [
                one | {"actions": {"upload": {"href": f"{hub.address}/large/{one['oid']}"}}} for one in asked["objects"]
            ]
            return self._say({"objects": places})
        if "/preupload/" in path:
            modes = {
                one["path"]: "lfs" if one["path"].endswith((".safetensors", ".onnx")) else "regular"
                for one in asked["files"]
            }
            files = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            return self._say({"files": files})
        return self._say({"name": "somebody", "errors": [], "warnings": []})  # whoami-v2, validate-yaml

    def _at(self, repo: str, revision: str | None) -> tuple[str, Files] | None:
        commits = {f"{number:040x}": files for number, files in enumerate(self.server.repos.get(repo, []), start=1)}
        sha = list(commits)[-1] if commits and revision in (None, "main") else revision or ""
        return (sha, commits[sha]) if sha in commits else None

    def _described(self, repo: str, revision: str | None) -> None:
        found = self._at(repo, revision)
        if not found:
            code = "RevisionNotFound" if repo in self.server.repos else "RepoNotFound"
            return self._say({"error": "nothing here"}, 404, {"X-Error-Code": code})
        sizes = {name: self.server.sizes.get(name, len(content)) for name, content in found[1].items()}
        files = [{"rfilename": name, "size": size} for name, size in sizes.items()]
        return self._say({"id": repo, "sha": found[0], "siblings": files, "private": False, "tags": []})

    def _file(self, repo: str, revision: str, name: str) -> None:
        found = self._at(repo, revision)
        if not found or name not in found[1]:
            return self._say({}, 404, {"X-Error-Code": "EntryNotFound"})
        content = found[1][name]
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return self._say(content, 200, {"X-Repo-Commit": found[0], "ETag": etag})

    def _commit(self, repo: str) -> None:
        files = dict(self.server.repos[repo][-1])
        for line in map(json.loads, self.body.splitlines()):
            told = line["value"]
            if line["key"] == "file":
                files[told["path"]] = base64.b64decode(told["content"])
            elif line["key"] == "lfsFile":
                files[told["path"]] = self.server.large[told["oid"]]
            elif line["key"] == "deletedFile":
                del files[told["path"]]
        self.server.repos[repo].append(files)
        return self._say({"commitUrl": f"{self.server.address}/{repo}/commit/1", "commitOid": "1" * 40})

    def _say(self, answer: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that this process asks, with an empty cache; it has read its settings from the environment already."""
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
    """The same for a process of its own."""
    return {"HF_ENDPOINT": hub.address, "HF_HOME": "hf", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
