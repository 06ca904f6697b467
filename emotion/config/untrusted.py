"""Checks of configs and command lines of unknown origin, before Hydra acts on them.

Hydra instantiates its callbacks and its logging, whatever a config names, before a verb starts. What a verb
instantiates is checked by `emotion.config.instantiate`.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args
from hydra.conf import HydraConf
from hydra.core.config_search_path import SearchPathQuery
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from emotion.config.compose import CONF, PACKAGE, SEARCH_PATH, searched_folders
from emotion.errors import UserError
from emotion.io.bounded import read_text

LAUNCHERS = ("hydra_plugins.hydra_joblib_launcher.", "hydra_plugins.hydra_submitit_launcher.")
BUILT_IN = "hydra._internal.core_plugins."
HANDLERS = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler")
PLAIN_SEARCH_PATH = re.compile(r"\+*hydra\.searchpath=\[?(?P<folders>[^\[\]]*)\]?")
URL_SCHEMES = ("ext://", "cfg://", "pkg://")  # through which logging and Hydra can import any module

INVALID = (yaml.YAMLError, GrammarParseError)
"""Exceptions of text that is no config."""

HYDRA_OVERRIDE = re.compile(r"[+~]*(hydra[./@=]|[^=]*@:?hydra\b)")
SAFE_HYDRA_OVERRIDE = re.compile(
    r"[+~]*(hydra\.(run|sweep|job\.(name|chdir|num|id|config)|launcher|sweeper\.(params|max_batch_size))\.?[\w.]*"
    r"|hydra\.(verbose|mode|output_subdir)|hydra/(launcher|sweeper|job_logging|hydra_logging|help|output))="
)
"""Overrides of Hydra's own settings that instantiate nothing."""
SAFE_INTERPOLATION = re.compile(r"\$\{hydra\.(job|sweep)\.\w+\}|(?!\$\{.*\}$).*", re.DOTALL)
"""Values that cannot become a mapping: Hydra's own typed settings, and text around an interpolation."""


def check_command(verb: str, arguments: Sequence[str]) -> None:
    """Refuse a command line that makes Hydra import or instantiate anything but its launchers.

    Raises:
        UserError: Naming the override, or the file in a folder of configs.
    """
    parsed = get_args(list(arguments))
    searched = searched_folders(parsed.overrides)
    for override in parsed.overrides:
        if SEARCH_PATH.fullmatch(override):
            continue
        if (match := PLAIN_SEARCH_PATH.fullmatch(override)) and "://" not in override.replace("file://", ""):
            folders = [folder.strip(" '\"").removeprefix("file://") for folder in match["folders"].split(",")]
            named = ",".join(f"file://{folder}" for folder in folders if folder)
            raise UserError(f"{override}: write hydra.searchpath=[{named or 'file://FOLDER'}].")
        if HYDRA_OVERRIDE.match(override) and (not SAFE_HYDRA_OVERRIDE.match(override) or "_target_" in override):
            raise UserError(
                f"{override} is not allowed. Of hydra, set only where and how it runs: hydra.run.dir, "
                f"hydra.sweep.dir, hydra.launcher.SETTING."
            )
    for folder in searched:
        if not Path(folder).is_dir() and not folder.startswith(URL_SCHEMES):
            raise UserError(f"hydra.searchpath: {folder} does not exist in {Path.cwd()}; expected a folder of configs.")
    added = [folder for folder in (parsed.config_dir, *searched) if folder]
    for folder in (*added, *filter(None, [parsed.config_path])):
        if folder.startswith(URL_SCHEMES):
            raise UserError(f"{folder}: expected a folder of configs, not a package.")
        for root in {Path(folder).absolute(), PACKAGE / folder}:  # Hydra accepts both
            for file in sorted(root.rglob("*.y*ml")):
                try:
                    content = read_config(file)
                except UserError as error:
                    if parsed.config_path or not isinstance(error.__cause__, INVALID):
                        raise
                    continue  # if it is chosen, Hydra refuses it, too
                _check_values(file, content, allow_targets=not parsed.config_path)
    if added and not parsed.config_path:
        try:
            _check_composed(parsed.config_name or verb, parsed.config_dir, parsed.overrides)
        except INVALID as error:
            raise UserError(f"A chosen config cannot be read: {' '.join(str(error).split())}.") from error


def _check_composed(name: str, config_dir: str | None, overrides: Sequence[str]) -> None:
    """Refuse a composed config with a target that is not allowed, or with one that Hydra would instantiate."""
    search_path = create_config_search_path(str(CONF))
    if config_dir:  # as Hydra adds it
        search_path.prepend("command-line", f"file://{Path(config_dir).absolute()}", SearchPathQuery("schema"))
    loader = ConfigLoaderImpl(search_path)
    config = loader.load_configuration(name, list(overrides), RunMode.MULTIRUN, validate_sweep_overrides=False)
    hydra = config.hydra
    OmegaConf.set_struct(config, False)
    values = list(_items([OmegaConf.to_container(OmegaConf.masked_copy(hydra, ["launcher", "sweeper"]))]))
    if (
        OmegaConf.get_type(hydra) is not HydraConf
        or OmegaConf.to_container(OmegaConf.masked_copy(hydra, ["callbacks"])) != {"callbacks": {}}
        or OmegaConf.to_container(OmegaConf.masked_copy(hydra.job, ["env_set"])) != {"env_set": {}}
        or not all(str(value).startswith((*LAUNCHERS, BUILT_IN)) for key, value in values if key == "_target_")
        or not all(SAFE_INTERPOLATION.fullmatch(value) for _, value in values if isinstance(value, str))
    ):
        raise UserError(
            "folder of configs: a config sets hydra.callbacks, hydra.job.env_set, hydra.launcher or hydra.sweeper; "
            "choose those on the command line, such as hydra/launcher=joblib."
        )
    del config.hydra
    _check_values(Path("folder of configs"), OmegaConf.to_container(config))


def check_run_config(path: Path) -> None:
    """Refuse the stored config of a run if it configures Hydra or includes other configs.

    Raises:
        UserError: Naming the entries.
    """
    content = read_config(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no settings; expected the config of a run.")
    if forbidden := [key for key in ("hydra", "defaults") if key in content]:
        raise UserError(f"{path} holds {' and '.join(forbidden)}; expected only the settings of a run.")
    _check_values(path, content)


def read_config(path: Path) -> object:
    """Return the content of a config, with unresolved interpolations.

    Raises:
        UserError: It cannot be read or is too large.
    """
    try:
        text = read_text(path)
        return OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} cannot be read as a config: {' '.join(str(error).split())[:200]}.") from error


def _check_values(path: Path, content: object, *, allow_targets: bool = False) -> None:
    from emotion.config.instantiate import PACKAGES, advise_plugin, plugins

    for key, value in _items(content):
        if isinstance(value, str) and value.startswith(URL_SCHEMES):
            raise UserError(f"{path} names {value}; a config may not use {value.partition('://')[0]}://.")
        is_allowed = allow_targets or str(value).startswith((*PACKAGES, *plugins(), *LAUNCHERS))
        if key == "_target_" and value is not None and not is_allowed:
            raise UserError(f"{path}: a config may not instantiate _target_ {value!r}.{advise_plugin(str(value))}")
        if key == "()" or (key == "class" and "." in str(value) and value not in HANDLERS):
            raise UserError(f"{path}: found the log handler {value}, expected one of {', '.join(HANDLERS)}.")


def _items(content: object) -> Iterator[tuple[object, object]]:
    """Yield each key and value, and each item of a list under the list's key, at any depth."""
    pending: list[tuple[object, object]] = [("", content)]
    while pending:
        key, value = pending.pop()
        yield key, value
        if isinstance(value, dict):
            pending += value.items()
        elif isinstance(value, list):
            pending += [(key, item) for item in value]
