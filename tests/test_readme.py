"""The README's commands compose, its make targets exist, and its figures stand in a record."""

import re
from pathlib import Path

import pytest

from tests.conftest import compose_config

README = (Path(__file__).parent.parent / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"python -m emotion\.(\w+)([^`\n#]*)", README)))


@pytest.mark.parametrize(("verb", "rest"), COMMANDS)
def test_every_command_composes(verb: str, rest: str) -> None:
    overrides = [word for word in rest.split() if "=" in word and not word.startswith("resume=")]
    single = [re.sub(r"=([^,\[{]+),.*", r"=\1", word) for word in overrides]  # of a sweep, its first value
    compose_config(verb, *(word.replace("RUN", "outputs/x") for word in single))


def test_every_make_target_exists(project: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (project / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE)) <= targets


def test_every_file_that_is_named_exists(project: Path) -> None:
    for name in re.findall(r"`((?:emotion|conf|tests)/[\w/.]+)`", README):
        assert "NAME" in name or (project / name).exists(), name
