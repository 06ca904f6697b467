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


class Tally:
    """The cases of one test."""

    def __init__(self) -> None:
        self.tried = 0
        self.broken: list[str] = []

    @contextmanager
    def __call__(self, case: object) -> Iterator[None]:
        """Run one case; an exception marks it as broken and lets the next one run."""
        self.tried += 1
        try:
            yield
        except Exception as error:
            self.broken.append(f"{case}: {type(error).__name__}: {error}")


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Count a test's cases for the promise named by its mark: `@pytest.mark.promise("resume")`."""
    mark = request.node.get_closest_marker("promise")
    assert mark, "a test that counts cases needs @pytest.mark.promise(NAME)"
    cases = Tally()
    yield cases
    request.node.user_properties.append(("promise", [mark.args[0], cases.tried - len(cases.broken), cases.tried]))
    assert not cases.broken, "\n".join(cases.broken)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--counts", metavar="FILE", help="add how many cases of each promise held to FILE")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found: dict[str, dict[str, int]] = {}
    for reports in terminalreporter.stats.values():
        for report in (report for report in reports if getattr(report, "when", "") == "teardown"):
            for _, (name, held, tried) in (pair for pair in report.user_properties if pair[0] == "promise"):
                counts = found.setdefault(name, {"held": 0, "of": 0})
                counts["held"] += held
                counts["of"] += tried
    if not found:
        return
    path = config.getoption("--counts")
    if path and Path(path).is_file():
        found = json.loads(Path(path).read_text())["counts"] | found
    found = {name: found[name] for name in PROMISES if name in found}
    terminalreporter.section("promises")
    for name, counts in found.items():
        terminalreporter.write_line(f"{counts['held']:5,} of {counts['of']:5,}  {name}: {PROMISES[name]}")
    if path:
        record = {"commit": run_record.commit(), "versions": run_record.versions(),
                  "machine": device_name("cpu"), "counts": found}  # fmt: skip
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(record, indent=1) + "\n")
