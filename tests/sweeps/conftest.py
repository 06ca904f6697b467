import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emotion.train import dispatch
from tests.processes import CompletedVerb
from tests.test_cli import SMALL


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CompletedVerb]:
    """`python -m emotion.train` with the small network, in this process."""

    def run(*arguments: str) -> CompletedVerb:
        keys = {argument.partition("=")[0] for argument in arguments}
        small = [override for override in SMALL if override.partition("=")[0] not in keys]
        monkeypatch.setattr(sys, "argv", ["emotion.train", *small, "~callbacks.early_stopping", *arguments])
        status: object = 0
        try:
            dispatch()
        except SystemExit as exit_:
            status = exit_.code or 0
        assert isinstance(status, int)
        return CompletedVerb(status, *capsys.readouterr())

    return run


def only(pattern: str) -> Path:
    """The only path that matches a pattern."""
    (path,) = Path().glob(pattern)
    return path
