"""Compose the config of a verb."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

PACKAGE = Path(__file__).parent.parent
CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir())
"""conf/ lies inside an installed package, and beside it in a clone."""


VERBS = sorted(file.stem for file in CONF.glob("*.yaml") if file.stem != "base")


def compose(verb: str, *overrides: str) -> DictConfig:
    """The config that `python -m emotion.<verb> OVERRIDE ...` has."""
    inside = GlobalHydra.instance().is_initialized()  # by the verb under way, whose configs are the same
    with contextlib.nullcontext() if inside else hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(verb, overrides=list(overrides))


def is_int_at_least(value: object, least: int) -> bool:
    """Whether a setting is a whole number of at least `least`; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def as_list(value: str | Sequence[object]) -> list[str]:
    """`key=RUN` and `key=[RUN,RUN]` alike, as a list of names."""
    return [value] if isinstance(value, str) else [str(item) for item in value]


def quote(text: str) -> str:
    """As Hydra's grammar takes any text."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
