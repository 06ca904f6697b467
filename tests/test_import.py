import subprocess
import sys

import pytest

from emotion.config.compose import CONF

LATE = ("torch", "lightning", "matplotlib", "kornia", "torchvision", "timm")


def imported(statement: str) -> str:
    """Modules that a fresh process holds after `statement`, or what it printed besides."""
    code = f"{statement}; import sys; print(*sys.modules)"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("verb", sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "base"))
def test_a_verb_answers_before_anything_heavy_is_imported(verb: str) -> None:
    modules = imported(f"import emotion.{verb}").split()
    assert not set(LATE) & set(modules)


def test_import_is_silent_and_light() -> None:
    assert len(imported("import emotion").splitlines()) == 1


def test_loading_the_default_imports_neither_torch_nor_hydra() -> None:
    modules = imported("import emotion; emotion.load()").split()
    assert not {*LATE, "hydra", "omegaconf"} & set(modules)
