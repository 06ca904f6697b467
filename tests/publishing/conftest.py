from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.publishing.hub_stub import TOKEN, Hub, serving


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A local Hub that this process uses, without a token."""
    with serving(monkeypatch) as hub:
        yield hub


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch, served: Hub) -> str:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return TOKEN


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    """A run of the small V4 on six classes."""
    return small_run(Path("run"), "trainer.max_epochs=1")
