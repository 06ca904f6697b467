"""Configs from elsewhere: what is refused before Hydra reads them, which builds parts of its own and imports packages.

Hydra's callbacks and its logging are made of whatever a config names, before a verb begins; see
`emotion.config.instantiate` for
what a verb makes of one. A run's kept config holds settings alone.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from hydra._internal.utils import get_args
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from emotion.config.compose import PACKAGE
from emotion.errors import UserError
from emotion.io.bounded import DEEPEST, MOST_NODES, text_of

LAUNCHERS = ("hydra_plugins.hydra_joblib_launcher.", "hydra_plugins.hydra_submitit_launcher.")
HANDLERS = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler")
ADDRESSES = ("ext://", "cfg://", "pkg://")  # by which logging and Hydra reach any module

OF_HYDRA = re.compile(r"[+~]*(hydra[./@=]|[^=]*@:?hydra\b)")
OPEN = re.compile(
    r"[+~]*(hydra\.(run|sweep|job\.(name|chdir|num|id|config)|launcher|sweeper\.(params|max_batch_size))\.?[\w.]*"
    r"|hydra\.(verbose|mode|output_subdir)|hydra/(launcher|sweeper|job_logging|hydra_logging|help|output))="
)
"""What may be said of Hydra on the command line; nothing of it names what is to be built."""


def check_command(arguments: Sequence[str]) -> None:
    """Refuse a command line, or a config in a folder that it names, that has Hydra build or import what it may not.

    Raises:
        UserError: naming what asks for it.
    """
    asked = get_args(list(arguments))
    for override in asked.overrides:
        if OF_HYDRA.match(override) and (not OPEN.match(override) or "_target_" in override):
            raise UserError(
                f"{override}: expected of hydra. where and how it runs (run.dir, sweep.dir, launcher.SETTING), and "
                f"nothing that it is to build."
            )
    for folder in (folder for folder in (asked.config_dir, asked.config_path) if folder):
        if folder.startswith(ADDRESSES):
            raise UserError(f"{folder}: expected a folder of configs, not a package.")
        for place in {Path(folder).absolute(), PACKAGE / folder}:  # Hydra takes either
            for file in sorted(place.rglob("*.y*ml")):
                _check(file, settings_of(file))


def check_kept(path: Path) -> None:
    """Refuse a run's config that says something to Hydra, or takes in other configs.

    Raises:
        UserError: naming what it says.
    """
    found = settings_of(path)
    if not isinstance(found, dict) or (more := [key for key in ("hydra", "defaults") if key in found]):
        what = " and ".join(more) if isinstance(found, dict) else "no settings"
        raise UserError(f"{path} holds {what}; expected the settings of a run and nothing else. It is not ours.")
    _check(path, found)


def settings_of(path: Path) -> object:
    """A config's content, its interpolations as they stand.

    Raises:
        UserError: it cannot be read, or is larger than any config.
    """
    try:
        text = text_of(path)
        _check_size(path, text)
        return OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} cannot be read as a config: {' '.join(str(error).split())[:200]}.") from error


def _check_size(path: Path, text: str) -> None:
    """Raises UserError where aliases of aliases, or lists of lists, would make more of a text than it looks."""
    nodes, sizes, inside = 0, dict[str, int](), list[tuple[str | None, int]]()
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            nodes += sizes.get(event.anchor, 0)
        elif isinstance(event, yaml.NodeEvent):
            nodes += 1
        if isinstance(event, yaml.CollectionStartEvent):
            inside.append((event.anchor, nodes - 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = inside.pop()
            sizes |= {anchor: nodes - before} if anchor else {}
        if nodes > MOST_NODES or len(inside) > DEEPEST:
            raise UserError(
                f"{path} is no config: expected at most {MOST_NODES:,} settings, with what aliases stand for, and "
                f"{DEEPEST} levels."
            )


def _check(path: Path, content: object) -> None:
    from emotion.config.instantiate import PACKAGES

    for key, value in _entries(content):
        if isinstance(value, str) and value.startswith(ADDRESSES):
            raise UserError(f"{path} names {value}, which a config may not reach.")
        if key == "_target_" and value is not None and not str(value).startswith((*PACKAGES, *LAUNCHERS)):
            raise UserError(f"{path}: _target_ {value!r} is not among what a config may build.")
        if key == "()" or (key == "class" and "." in str(value) and value not in HANDLERS):
            raise UserError(f"{path}: a log is to be made by {value}; expected one of {', '.join(HANDLERS)}.")


def _entries(content: object) -> Iterator[tuple[object, object]]:
    """Each key and value, and each item under its list's key, at any depth."""
    pending: list[tuple[object, object]] = [("", content)]
    while pending:
        key, value = pending.pop()
        yield key, value
        if isinstance(value, dict):
            pending += value.items()
        elif isinstance(value, list):
            pending += [(key, item) for item in value]
