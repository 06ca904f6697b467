"""Promises counted: of the cases that were tried, how many held. `make test-hard` prints and keeps the counts."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emotion.io.atomic import write_text
from emotion.records import run_record
from emotion.runtime.hardware import device_name

PROMISES = {
    "resume": (36, "A run stopped at any moment and resumed in a new process is the run that was never stopped"),
    "order": (30, "The order of faces is a matter of seed, epoch and batch alone"),
    "losses": (1800, "Two runs of one seed have equal losses, bit by bit, step for step, whatever the model"),
    "killed": (100, "`kill -9` at any moment leaves readable files, loses one checkpoint interval at most"),
    "atomic": (10, "A file is written beside its place, synced, and moved there in one step"),
    "signals": (30, "SIGTERM, SIGINT and SIGUSR1 end in 143, 130 and the queue, with a whole checkpoint in 10 s"),
    "disk": (12, "A disk that is full, read-only or out of inodes costs one line, and no former file"),
    "own files": (200, "Files of ours that are damaged or swapped are refused, and `resume=auto` goes round them"),
    "data": (1000, "Damaged data is the same faces, or is said in one message"),
    "files": (100, "A hostile file runs nothing, and is refused in less than 1 GB of memory"),
    "targets": (90, "A config that names what it may not is refused"),
    "images": (540, "A hostile picture is answered or refused within 2 s, in less than 200 MB"),
    "demo": (9, "The demo keeps answering honest clients while others attack it"),
    "together": (3, "Processes side by side share a cache, and refuse to share a run"),
    "quiet": (13, "Nothing is started, opened or written that was not asked for"),
    "kernels": (22, "Every layer in bfloat16 is within 2 % of float32 and no slower, or float32 is taken"),
}
"""Name: how many cases there are, and what is said of them."""


class Tally:
    """The cases of one test."""

    def __init__(self) -> None:
        self.held = 0
        self.broken: list[str] = []

    @contextmanager
    def __call__(self, case: object) -> Iterator[None]:
        """One case: it holds unless something is raised, and the next one is tried in either way."""
        try:
            yield
        except Exception as error:
            self.broken.append(f"{case}: {type(error).__name__}: {error}")
        else:
            self.held += 1


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Counts a test's cases to the promise that its mark names: `@pytest.mark.promise("resume")`."""
    mark = request.node.get_closest_marker("promise")
    assert mark, "a test that counts says what: @pytest.mark.promise(NAME)"
    cases = Tally()
    yield cases
    request.node.user_properties.append(("promise", [mark.args[0], cases.held]))
    assert not cases.broken, "\n".join(cases.broken)


def table(record: dict[str, Any]) -> str:
    """The counts that a run of the tests wrote, as the README has them."""
    rows = [
        f"| {PROMISES[name][1]} | {count['held']:,} of {count['of']:,} |" for name, count in record["counts"].items()
    ]
    return "\n".join(["| What was tried | held |", "|---|---:|", *rows])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--counts", metavar="FILE", help="add how many cases of each promise held to FILE")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    held: dict[str, int] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "teardown":
                for _, (name, cases) in (pair for pair in report.user_properties if pair[0] == "promise"):
                    held[name] = held.get(name, 0) + cases
    path = config.getoption("--counts")
    if path and Path(path).is_file():
        before = json.loads(Path(path).read_text())["counts"]
        held = {name: count["held"] for name, count in before.items() if count["held"]} | held
    if held:
        terminalreporter.section("promises")
    for name, (of, sentence) in PROMISES.items():
        if name in held:
            terminalreporter.write_line(f"{held[name]:5,} of {of:5,}  {name}: {sentence}")
    if held and path:
        counts = {name: {"held": held.get(name, 0), "of": of} for name, (of, _) in PROMISES.items()}
        record = {"commit": run_record.commit(), "versions": run_record.versions(),
                  "machine": device_name("cpu"), "counts": counts}  # fmt: skip
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(record, indent=1) + "\n")
