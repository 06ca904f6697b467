"""What a person did not ask for does not happen: no process is started, no socket opened, nothing written elsewhere.

Python tells what it does itself, by an audit hook; what libraries below it do is seen in the sockets and children of
the demo, and in the files of the home and the temporary folder. A first run on an account is not watched: matplotlib,
which Lightning's metrics import, lists the fonts there are and keeps the list, and torch makes a folder for what it may
compile.
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
from tests.serving.demo_serving import TWO, ask

LOADER = "['/sbin/ldconfig', '-p']"
"""That torch's packages for CUDA start whenever they are imported, to find libdl."""
ALONE = {
    "import": ["import emotion"],
    "--help": ["emotion.predict", "--help"],
    "predict": ["emotion.predict", "source=photo.png", "output=seen"],
}


class Account:
    """A home, a temporary folder, and a folder with a photograph to work in."""

    def __init__(self, root: Path) -> None:
        self.home, self.temporary, self.work = (root / name for name in ("home", "temporary", "work"))
        for folder in (self.home, self.temporary, self.work):
            folder.mkdir()
        (self.work / "photo.png").write_bytes(encode_image(FACE))
        self.notes = root / "notes"
        passed = {
            name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL", "TORCH", "HF_"))
        }
        places = {"HOME": str(self.home), "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT)}
        self.environment = passed | places | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    @contextmanager
    def started(self, arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
        """A process that is watched from its first line on, and ends well."""
        self.notes.unlink(missing_ok=True)
        command = [sys.executable, str(ROOT / "tests/promises/audit.py"), str(self.notes), *arguments]
        with subprocess.Popen(
            command, cwd=self.work, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            yield process
            _, said = process.communicate(timeout=120)
        assert process.returncode in (0, 128 + signal.SIGTERM), said

    def others(self) -> set[Path]:
        """All that lies outside the folder it works in."""
        return {path for folder in (self.home, self.temporary) for path in folder.rglob("*")}

    def noted(self, kind: str) -> list[str]:
        """What was done of a kind; of files only those elsewhere."""
        lines = [json.loads(line) for line in self.notes.read_text().splitlines()]
        about = [place for line in lines if line[0] == kind for place in line[1:]]
        own = (str(self.work), str(self.temporary), os.devnull)
        return [one for one in about if not (kind == "file" and one.startswith(own))]

    def hold_against(self, tally: Tally, name: str, before: set[Path], *sockets: str) -> None:
        """Three cases."""
        with tally(f"{name}: processes"):
            assert set(self.noted("process")) <= {LOADER}
        with tally(f"{name}: sockets"):
            assert self.noted("socket") == list(sockets)
        with tally(f"{name}: files"):
            assert self.noted("file") == []
            assert self.others() == before


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Account:
    made = Account(tmp_path_factory.mktemp("account"))
    with made.started(ALONE["predict"]):
        pass
    assert made.noted("process"), "nothing is noted"
    return made


@pytest.mark.hard
@pytest.mark.promise("quiet")
@pytest.mark.parametrize("name", ALONE)
def test_nothing_is_done_besides(name: str, account: Account, tally: Tally) -> None:
    before = account.others()
    with account.started(ALONE[name]):
        pass
    account.hold_against(tally, name, before)


@pytest.mark.hard
@pytest.mark.promise("quiet")
def test_the_demo_listens_and_does_nothing_besides(account: Account, tally: Tally) -> None:
    before = account.others()
    with account.started(["emotion.demo", "port=0"]) as process:
        assert process.stdout
        said = re.search(r"http://127.0.0.1:(\d+)/", process.stdout.readline())
        assert said
        port = int(said[1])
        assert len(ask(port, TWO, "/api/look?map=1")[1]["faces"]) == 2
        with tally("demo: below Python"):
            assert ports(process.pid) == {port}
            assert Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text() == ""
        process.terminate()
    account.hold_against(tally, "demo", before, "socket.getaddrinfo 127.0.0.1", "socket.bind ('127.0.0.1', 0)")


def ports(pid: int) -> set[int]:
    """Local ports of a process's sockets, by whatever protocol."""
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    own = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    tables = (Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6", "udp", "udp6"))
    rows = [row.split() for table in tables for row in table]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[9] in own}
