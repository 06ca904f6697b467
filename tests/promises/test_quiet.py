"""The package starts no process, opens no socket and writes no file that the user did not request.

An audit hook records what Python does; libraries below it are checked by the demo's sockets and children and by the
files in the home and temporary folders. The first run of an account is not audited: matplotlib caches the list of fonts
and torch creates a folder for compiled code.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.counted import Tally
from tests.images import encode_image
from tests.promises.hostile_images import FACE
from tests.serving.demo_server import TWO, send_request

LOADER = "['/sbin/ldconfig', '-p']"
"""Started by torch's CUDA packages at import, to find libdl."""
ALONE = {
    "import": ["import emotion"],
    "--help": ["emotion.predict", "--help"],
    "predict": ["emotion.predict", "source=photo.png", "output=seen"],
}


class Account:
    """A home folder, a temporary folder and a working folder with a photo."""

    def __init__(self, root: Path) -> None:
        self.home, self.temporary, self.work = (root / name for name in ("home", "temporary", "work"))
        for folder in (self.home, self.temporary, self.work):
            folder.mkdir()
        (self.work / "photo.png").write_bytes(encode_image(FACE))
        self.log = root / "log"
        passed = {
            name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL", "TORCH", "HF_"))
        }
        places = {"HOME": str(self.home), "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT)}
        self.environment = passed | places | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    @contextmanager
    def start(self, arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
        """Run an audited process that must succeed."""
        self.log.unlink(missing_ok=True)
        command = [sys.executable, str(ROOT / "tests/promises/audit.py"), str(self.log), *arguments]
        with subprocess.Popen(
            command, cwd=self.work, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            yield process
            _, errors = process.communicate(timeout=120)
        assert process.returncode in (0, 128 + signal.SIGTERM), errors

    def other_files(self) -> set[Path]:
        """Return all files outside the working folder."""
        return {path for folder in (self.home, self.temporary) for path in folder.rglob("*")}

    def logged(self, kind: str) -> list[str]:
        """Return the logged events of a kind; of files only those outside the working folder."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        subjects = [subject for line in lines if line[0] == kind for subject in line[1:]]
        own = (str(self.work), str(self.temporary), os.devnull)
        return [one for one in subjects if not (kind == "file" and one.startswith(own))]

    def check(self, tally: Tally, name: str, before: set[Path], *sockets: str) -> None:
        """Check processes, sockets and files as three cases."""
        with tally(f"{name}: processes"):
            assert set(self.logged("process")) <= {LOADER}
        with tally(f"{name}: sockets"):
            assert self.logged("socket") == list(sockets)
        with tally(f"{name}: files"):
            assert self.logged("file") == []
            assert self.other_files() == before


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Account:
    new = Account(tmp_path_factory.mktemp("account"))
    with new.start(ALONE["predict"]):
        pass
    assert new.log.read_text(), "the audit hook logs nothing"
    return new


@pytest.mark.hard
@pytest.mark.promise("quiet")
@pytest.mark.parametrize("name", ALONE)
def test_a_command_does_nothing_else(name: str, account: Account, tally: Tally) -> None:
    before = account.other_files()
    with account.start(ALONE[name]):
        pass
    account.check(tally, name, before)


@pytest.mark.hard
@pytest.mark.promise("quiet")
def test_the_demo_listens_and_does_nothing_else(account: Account, tally: Tally) -> None:
    before = account.other_files()
    with account.start(["emotion.demo", "port=0"]) as process:
        assert process.stdout
        url = re.search(r"http://127.0.0.1:(\d+)/", process.stdout.readline())
        assert url
        port = int(url[1])
        assert len(send_request(port, TWO, "/api/predict?map=1")[1]["faces"]) == 2
        with tally("demo: below Python"):
            assert ports(process.pid) == {port}
            assert Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text() == ""
        process.terminate()
    account.check(tally, "demo", before, "socket.getaddrinfo 127.0.0.1", "socket.bind ('127.0.0.1', 0)")


def ports(pid: int) -> set[int]:
    """Return the local ports of a process's sockets."""
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    own = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    tables = (Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6", "udp", "udp6"))
    rows = [row.split() for table in tables for row in table]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[9] in own}
