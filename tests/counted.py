"""Count how many cases of each promise hold; `make test-hard` prints and records the counts."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from emotion.io.atomic import write_text
from emotion.records import run_record
from emotion.reporting.readme_tables import PROMISES
from emotion.runtime.hardware import device_name

CASES = {
    "resume": 36,
    "order": 30,
    "losses": 1800,
    "killed": 100,
    "atomic": 10,
    "signals": 30,
    "disk": 12,
    "own files": 200,
    "data": 1000,
    "files": 100,
    "targets": 90,
    "images": 540,
    "demo": 9,
    "together": 3,
    "quiet": 13,
    "kernels": 22,
}
"""Number of cases of each promise; `emotion.reporting.readme_tables.PROMISES` describes them."""


class Tally:
    """The cases of one test."""

    def __init__(self) -> None:
        self.held = 0
        self.broken: list[str] = []

    @contextmanager
    def __call__(self, case: object) -> Iterator[None]:
        """Run one case; an exception marks it as broken and lets the next one run."""
        try:
            yield
        except Exception as error:
            self.broken.append(f"{case}: {type(error).__name__}: {error}")
        else:
            self.held += 1


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Count a test's cases for the promise named by its mark: `@pytest.mark.promise("resume")`."""
    mark = request.node.get_closest_marker("promise")
    assert mark, "a test that counts cases needs @pytest.mark.promise(NAME)"
    cases = Tally()
    yield cases
    request.node.user_properties.append(("promise", [mark.args[0], cases.held]))
    assert not cases.broken, "\n".join(cases.broken)


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
    for name, of in CASES.items():
        if name in held:
            terminalreporter.write_line(f"{held[name]:5,} of {of:5,}  {name}: {PROMISES[name]}")
    if held and path:
        counts = {name: {"held": held.get(name, 0), "of": of} for name, of in CASES.items()}
        record = {"commit": run_record.commit(), "versions": run_record.versions(),
                  "machine": device_name("cpu"), "counts": counts}  # fmt: skip
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(record, indent=1) + "\n")
