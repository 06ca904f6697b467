"""Parse a sweep from the command line before Hydra runs: its runs and its folder."""

import json
import math
from collections.abc import Sequence
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from emotion.cli import MULTIRUN, check_values, command_line, set_command_line
from emotion.config.compose import CONF, compose, quote, searched_folders
from emotion.config.resume import is_location
from emotion.data.sources import check_data
from emotion.errors import UserError
from emotion.io.atomic import make_folder, write_text

SWEEP_FILE = "sweep.json"
FOLDER_KEY = "hydra.sweep.dir"
SEARCH_PATH_KEY = "hydra.searchpath"
"""Key that adds folders of configs; a trial is composed with its value."""
INTERNAL_KEYS = ("study.space", "study.fixed", FOLDER_KEY)
IDENTITY_EXCLUDES = ("hydra.launcher", "hydra/launcher", "study.n_trials")
"""Settings that do not change what the runs are."""
MODEL_KEYS = {"model", "experiment", "name"}


class Sweep(NamedTuple):
    """The runs that one command requests."""

    folder: Path
    overrides: list[str]  # that identify the sweep
    size: int  # number of runs
    is_resumed: bool  # whether the same command started it before
    study: DictConfig | None  # the composed config of a search


class _Command(NamedTuple):
    """A parsed command line."""

    fixed: dict[str, Override]  # with one value, by key
    swept: dict[str, Override]  # with several values, by key, including those of sweep=NAME
    cfg: DictConfig  # composed with the fixed overrides


def parse_command_line() -> Sweep | None:
    """Return the sweep of `-m` or `sweep=NAME`, None for a single run; add the sweep's folder to the command line.

    The same command resumes the same sweep in its folder, unless `hydra.sweep.dir` is given. Overrides that all runs
    share are left out of the names of their folders. A sweep over several models is in outputs/sweep/<time> instead of
    a model's folder.

    Raises:
        UserError: A value is of a wrong type or out of range.
    """
    flags = [argument for argument in command_line() if argument in MULTIRUN]
    overrides = [argument for argument in command_line() if argument not in MULTIRUN]
    set_command_line([*flags, *overrides])  # the order that Hydra accepts
    has_options = any(argument.startswith("-") for argument in overrides)  # --help, --cfg and others
    command = None if has_options else _parse(overrides)
    if command is None or not (flags or "sweep" in command.fixed):
        return None
    _check_values(command)
    fixed, swept, cfg = command
    is_search = OmegaConf.select(cfg, "study") is not None
    identity = sorted(argument for argument in overrides if not argument.lstrip("+~").startswith(IDENTITY_EXCLUDES))
    if FOLDER_KEY in fixed or is_search:
        folder = Path(cfg.hydra.sweep.dir)
    else:
        parent = _parent_folder(command)
        folder = _find_folder(parent, identity) or _new_folder(parent)
    shared = sorted(fixed.keys() | (swept.keys() if is_search else set()))
    if is_search:
        size = int(cfg.study.n_trials)
        set_command_line([*flags, *_search_overrides(command)])
    else:
        size = math.prod(len(set(override.sweep_string_iterator())) for override in swept.values())
        if searched_folders(overrides):  # Hydra's sweeper does not search these folders for glob()
            set_command_line([*command_line(), *(str(override.input_line) for override in swept.values())])
    unnamed = f"hydra.job.config.override_dirname.exclude_keys=[{','.join([*shared, *INTERNAL_KEYS])}]"
    set_command_line([*command_line(), unnamed, f"{FOLDER_KEY}={quote(str(folder))}"])
    return Sweep(folder, identity, size, (folder / SWEEP_FILE).is_file(), cfg if is_search else None)


def parse_overrides(lines: Sequence[str], folders: Sequence[str] = ()) -> list[Override]:
    """Parse overrides with Hydra's grammar, whose glob() selects from conf/ and further folders of configs.

    Raises:
        HydraException: An override is invalid.
    """
    search_path = create_config_search_path(str(CONF))
    for folder in folders:
        search_path.append("hydra.searchpath", f"file://{folder}")
    return OverridesParser.create(ConfigLoaderImpl(search_path)).parse_overrides(list(lines))


def check_folder(sweep: Sweep) -> None:
    """Raise UserError if the folder has another sweep; a search compares its study instead."""
    previous = _read_overrides(sweep.folder / SWEEP_FILE)
    if previous and not sweep.study and _without_locations(previous) != _without_locations(sweep.overrides):
        raise UserError(
            f"{sweep.folder} contains another sweep: {' '.join(previous)}. Choose another folder: "
            f"hydra.sweep.dir=FOLDER."
        )


def write_sweep_file(sweep: Sweep) -> None:
    """Write sweep.json, by which the same command finds the sweep again."""
    make_folder(sweep.folder)
    content = {"overrides": sweep.overrides, "runs": sweep.size}
    write_text(sweep.folder / SWEEP_FILE, json.dumps(content, indent=2) + "\n")


def _parse(arguments: Sequence[str]) -> _Command | None:
    """Parse the overrides; return None if they are invalid, which Hydra will report."""
    try:
        folders = searched_folders(arguments)
        given = {override.key_or_group: override for override in parse_overrides(arguments, folders)}
        fixed = {key: override for key, override in given.items() if not override.is_sweep_override()}
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            lines = [str(override.input_line) for override in fixed.values()]
            cfg = hydra.compose("train", overrides=lines, return_hydra_config=True)
        configured = [f"{key}={value}" for key, value in (cfg.hydra.sweeper.params or {}).items()]
        if OmegaConf.select(cfg, "study") is not None:
            configured = list(cfg.study.space)
        swept = {o.key_or_group: o for o in parse_overrides(configured, folders) if o.key_or_group not in fixed}
        swept |= {key: override for key, override in given.items() if override.is_sweep_override()}
        if folders:
            swept = {key: _list_choices(override) for key, override in swept.items()}
    except (HydraException, OmegaConfBaseException, TypeError, ValueError):
        return None
    return _Command(fixed, swept, cfg)


def _list_choices(override: Override) -> Override:
    """Return an override with the choices of its glob() listed, unless there are none."""
    values = ",".join(override.sweep_string_iterator()) if isinstance(override.value(), Glob) else ""
    return parse_overrides([f"{override.get_key_element()}=choice({values})"])[0] if values else override


def _check_values(command: _Command) -> None:
    """Check each value of the sweep once, with the first values of the other settings.

    Raises:
        UserError: A setting has no value, or one of a wrong type or out of range; or the data is missing.
    """
    values = {}
    for override in command.swept.values():
        if override.is_discrete_sweep():
            values[override.get_key_element()] = found = list(override.sweep_string_iterator())
            if not found:
                raise UserError(f"{override.input_line} has no value to try; expected some, as in KEY=A,B.")
    fixed = [str(override.input_line) for override in command.fixed.values()]
    first = {key: f"{key}={own[0]}" for key, own in values.items()}
    try:
        config = compose("train", *fixed, *first.values())
        check_values("train", config, [*fixed, *first.values()])
        check_data(config)
        for key, own in values.items():
            for argument in (f"{key}={value}" for value in own[1:]):
                arguments = [*fixed, *(first | {key: argument}).values()]
                (override,) = parse_overrides([argument])
                if OmegaConf.select(config, key) is None or (CONF / key).is_dir():
                    job = compose("train", *arguments)
                else:  # faster
                    OmegaConf.update(job := deepcopy(config), key, override.value())
                check_values("train", job, arguments)
    except (HydraException, OmegaConfBaseException):  # which Hydra will report
        return


def _search_overrides(command: _Command) -> list[str]:
    """Return the overrides of a search: the swept ones become `study.space`, as Hydra's sweeper has no intervals."""
    study = command.cfg.study
    study.space = [str(override.input_line) for override in command.swept.values()]
    study.fixed = [str(o.input_line) for o in command.fixed.values() if not _is_about_the_sweep(o)]
    fixed = [str(override.input_line) for override in command.fixed.values()]
    return [*fixed, *(f"study.{name}=[{','.join(map(quote, study[name]))}]" for name in ("space", "fixed"))]


def _is_about_the_sweep(override: Override) -> bool:
    key = str(override.key_or_group)
    is_hydra = key.startswith("hydra") and key != SEARCH_PATH_KEY
    return key in ("sweep", "pruner", "resume") or key.startswith("study.") or is_hydra


def _parent_folder(command: _Command) -> Path:
    """Return the folder of all sweeps of a name, or of several models without one."""
    several_models = command.swept.keys() & MODEL_KEYS and "name" not in command.fixed
    return Path("outputs/sweep") if several_models else Path(command.cfg.hydra.sweep.dir).parent


def _find_folder(parent: Path, overrides: list[str]) -> Path | None:
    """Return the latest folder in `parent` of a sweep with the same overrides."""
    files = sorted(parent.glob(f"*/{SWEEP_FILE}"))
    same = [path for path in files if _read_overrides(path) == overrides]
    return same[-1].parent if same else None


def _without_locations(overrides: Sequence[str]) -> list[str]:
    """Return the overrides other than the folder's, and those of data and teachers that all runs share."""
    return [
        override
        for override in overrides
        if not override.startswith(f"{FOLDER_KEY}=")
        and not (is_location(override) and not parse_overrides([override])[0].is_sweep_override())
    ]


def _new_folder(parent: Path) -> Path:
    folder = parent / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    while folder.exists():  # another command started in the same second
        folder = folder.with_name(f"{folder.name}_")
    return folder


def _read_overrides(path: Path) -> list[str] | None:
    try:
        overrides: list[str] = json.loads(path.read_text())["overrides"]
        return overrides
    except (ValueError, KeyError, TypeError, OSError):  # not a sweep, or damaged
        return None
