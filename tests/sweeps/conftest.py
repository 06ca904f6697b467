import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emotion.train import many_or_one
from tests.processes import Ended
from tests.test_cli import SMALL


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`python -m emotion.train` on the small network, in this process."""

    def run(*arguments: str) -> Ended:
        keys = {argument.partition("=")[0] for argument in arguments}
        small = [one for one in SMALL if one.partition("=")[0] not in keys]
        monkeypatch.setattr(sys, "argv", ["emotion.train", *small, "~callbacks.early_stopping", *arguments])
        status: object = 0
        try:
            many_or_one()
        except SystemExit as ended:
            status = ended.code or 0
        assert isinstance(status, int)
        return Ended(status, *capsys.readouterr())

    return run


def only(pattern: str) -> Path:
    """The one path that a pattern names."""
    (found,) = Path().glob(pattern)
    return found
