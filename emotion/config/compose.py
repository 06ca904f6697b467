"""Compose the config of a verb, and helpers for values and overrides."""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

PACKAGE = Path(__file__).parent.parent
CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir())
"""conf/ is part of an installed package, and next to the package in a clone."""

VERBS = sorted(file.stem for file in CONF.glob("*.yaml") if file.stem != "base")


def compose(verb: str, *overrides: str) -> "DictConfig":
    """Compose the config of `python -m emotion.<verb> OVERRIDE ...`."""
    import hydra  # which emotion.load() doesn't need
    from hydra.core.global_hydra import GlobalHydra

    initialized = GlobalHydra.instance().is_initialized()  # by the running verb, with the same configs
    with contextlib.nullcontext() if initialized else hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(verb, overrides=list(overrides))


SEARCH_PATH = re.compile(r"hydra\.searchpath=\[(?P<folders>(file://[^\[\],]+,?)+)\]")


def searched_folders(arguments: Sequence[str]) -> list[str]:
    """Return the folders of configs that `hydra.searchpath=[file://FOLDER]` on a command line adds to conf/."""
    lists = [match["folders"] for match in map(SEARCH_PATH.fullmatch, arguments) if match]
    return [folder.removeprefix("file://") for folders in lists for folder in folders.split(",") if folder]


def choices(group: str, arguments: Sequence[str] = ()) -> list[str]:
    """Return the choices of a config group, those of folders that a command line adds included."""
    folders = [CONF, *map(Path, searched_folders(arguments))]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings as pairs of a dotted key, as on the command line, and a value."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def is_int_at_least(value: object, minimum: int) -> bool:
    """Return whether a setting is an integer (not a boolean) of at least `minimum`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def as_yaml(value: object) -> str:
    """Return a setting as it is written in a config, on one line: null, true, [a, b]."""
    import yaml
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=math.inf, allow_unicode=True)
    return text.split("\n...")[0].rstrip()


def as_list(value: str | Sequence[object]) -> list[str]:
    """Return the names in `key=RUN` or `key=[RUN,RUN]`."""
    return [value] if isinstance(value, str) else [str(item) for item in value]


def quote(text: str) -> str:
    """Quote text for Hydra's override grammar, in which a backslash escapes only before a quote."""
    return "'" + re.sub(r"(\\+)(?='|\Z)", r"\1\1", text).replace("'", "\\'") + "'"


def escape(text: str) -> str:
    """Escape interpolations in text that OmegaConf reads, in which a backslash escapes only before one."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
