"""Explain the overrides that Hydra refuses, and refuse those that a verb would ignore."""

import re
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import pairwise

from hydra._internal.utils import get_args, get_args_parser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from emotion.config.compose import CONF, choices, compose
from emotion.errors import UserError

OTHER_NAMES = (
    (r"ckpt_path", "resume"),
    (r"ckpt_path", "checkpoint"),
    (r"(data|datamodule|dataset)\.batch_size|bs", "batch_size"),
    (r"((model|optim|optimizer)\.)*(lr|learning_rate)", "optimizer.lr"),
    (r"(trainer\.)?(max_|num_|n_)?epochs", "trainer.max_epochs"),
    (r"model\.(optimizer|scheduler)\b", r"\1"),
    (r"model\.net\b", "model"),
    (r"datamodule\b", "data"),
    (r"hparams_search", "sweep"),
    (r"(task|run|experiment)_name", "name"),
)
"""What other Hydra projects call a setting, and its name here."""

ANSWERS = {
    "ckpt_path": "resume=RUN continues a run; model.weights=RUN starts from its weights.",
    "test": "The best epoch is always evaluated on test once. To evaluate a run again: "
    "python -m emotion.evaluate checkpoint=RUN.",
    "train": "To evaluate a run without training: python -m emotion.evaluate checkpoint=RUN.",
}
"""Settings of other projects for which `train` has no setting, and what to use instead."""

OTHER_TYPES = re.compile(r"trainer\.devices|compile\..+")
"""Settings that also accept another type than their default's: auto or a list of devices, a mode of torch.compile."""
OR_NUMBER = ("loss.balanced",)
"""Settings that are true, false or a number."""

DASHED = re.compile(r"--?[A-Za-z][\w.-]+")
UNKNOWN = re.compile(r"Could not (?:override '|delete from config. ')(?P<key>[^']+)'")
EXISTS = re.compile(r"Could not append to config. An item is already at '(?P<key>[^']+)'|(?P<group>\S+) appears more")
NO_CHOICE = re.compile(r"Could not (?:find|load) '(?P<group>.+)/(?P<choice>[^/']+)'")
SEVERAL = re.compile(r"(Ambiguous value for argument|Sweep parameters) '(?P<key>[^=]+)=(?P<values>.*)'")
"""Values separated by commas, or other syntax of a sweep."""
NULL_GROUP = "Config group override must be a string"


def explain(verb: str, arguments: Sequence[str], error: Exception) -> str | None:
    """Return a message for an exception that Hydra raised for the arguments of a verb; None if it names no key."""
    overrides = _overrides(arguments)
    message = str(error)
    if match := UNKNOWN.match(message):
        key = match["key"]
        others = [override for override in (*_search_path(arguments), *overrides) if _key(override) != key]
        return unknown_setting(verb, key, _setting_keys(verb, others))
    if match := SEVERAL.match(message):
        key, values = match["key"], match["values"]
        a_list = f"; a list is {key}=[{values}]" if message.startswith("Ambiguous") else ""
        return f"{key}={values}: for several values, one after the other, add -m{a_list}."
    if match := EXISTS.match(message):
        key = match["key"] or match["group"]
        return f"{key} exists; write {key}=VALUE without the +."
    if message.startswith(NULL_GROUP):
        groups = [key for key in map(_key, overrides) if (CONF / key).is_dir() and f"{key}=null" in overrides]
        return "\n".join(f"{group}=null: choose one of {', '.join(choices(group))}." for group in groups) or None
    if match := NO_CHOICE.search(message):
        group, choice = match["group"], match["choice"]
        given = [override for override in get_args(list(arguments)).overrides if _key(override) == group]
        if given and choice in re.findall(r"[\w+.-]+", given[-1].partition("=")[2]):  # else a config names it
            existing, number = choices(group, arguments), "some" if "[" in given[-1] else "one"
            near = " or ".join(get_close_matches(choice, existing))
            advice = f"{f'; did you mean {near}?' if near else '.'} Expected {number} of {', '.join(existing)}."
            return f"{given[-1]}: {group} has no {choice}{advice}"
    return message.partition("\nConfig search path")[0] if isinstance(error, HydraException) else None


def check_additions(verb: str, arguments: Sequence[str]) -> None:
    """Refuse `+key=value` unless the key exists or belongs to a config group, whose target checks its arguments.

    Raises:
        UserError: Naming the nearest settings.
    """
    added = [override for override in _overrides(arguments) if override.startswith("+")]
    if not added:
        return
    config = compose(verb)
    for override in added:
        key = _key(override)
        root = re.split(r"[./@]", key)[0]
        known = OmegaConf.select(config, key, default=None, throw_on_missing=False) is not None
        is_group = (CONF / root).is_dir() or root == "study"  # which sweep=tpe adds
        if root not in config or not (known or is_group):
            raise UserError(unknown_setting(verb, key, _setting_keys(verb)))


def check_dashes(verb: str, arguments: Sequence[str]) -> None:
    """Refuse `--key value` and `--key=value`, as other programs take settings.

    Raises:
        UserError: With the setting as it is written here, or the nearest ones.
    """
    known = {option for action in get_args_parser()._actions for option in action.option_strings}
    for argument, following in pairwise([*arguments, ""]):
        option, has_value, value = argument.partition("=")
        if not DASHED.fullmatch(option) or option in known:
            continue
        key, keys = option.lstrip("-").replace("-", "_"), _setting_keys(verb)
        if not has_value:
            value = "VALUE" if not following or following[0] == "-" or "=" in following else following
        advice = f": {key}={value}." if key in keys else f". {unknown_setting(verb, key, keys)}"
        raise UserError(f"{argument}: settings have no dashes{advice}")


def check_types(verb: str, arguments: Sequence[str], config: DictConfig, of_hydra: Sequence[str] = ()) -> None:
    """Refuse a value whose type differs from that of the chosen groups' default: number, list of numbers or boolean.

    In an augmentation of a library, a list may replace a number.

    Overrides of Hydra's own settings, `of_hydra`, may add folders of configs.

    Raises:
        UserError: Naming the first such setting.
    """
    values = {key: override for override in _overrides(arguments) if not _is_group(key := _key(override))}
    if not values:
        return
    try:
        groups = (override for override in arguments if _is_group(_key(override)))
        defaults = _defaults(verb, *_search_path(of_hydra), *groups)
    except HydraException:  # a resumed run has its own configs
        return
    for key, override in values.items():
        default, value = (OmegaConf.select(one, key, throw_on_missing=False) for one in (defaults, config))
        if OTHER_TYPES.fullmatch(key) or value is None:
            continue
        if isinstance(default, bool) and (isinstance(value, str) or (_numbers(value) and key not in OR_NUMBER)):
            raise UserError(f"{override}: expected true or false.")
        is_list, has_list = (isinstance(one, ListConfig) for one in (default, value))
        has_shape = has_list or not is_list if key.startswith("augment.") else has_list == is_list
        if not _numbers(default) or (_numbers(value) and has_shape):
            continue
        raise UserError(f"{override}: expected {'a list of numbers' if is_list else 'a number'}, such as {default}.")


@cache
def _defaults(verb: str, *choices: str) -> DictConfig:
    """Return the config of choices of groups; the values of a sweep are compared with the same one."""
    return compose(verb, *choices)


def _numbers(value: object) -> bool:
    """Return whether it is a number or a list of numbers that is not empty."""
    items = list(value) if isinstance(value, ListConfig) else [value]
    return bool(items) and all(isinstance(item, int | float) and not isinstance(item, bool) for item in items)


def _is_group(key: str) -> bool:
    return "@" in key or (CONF / key).is_dir()


def unknown_setting(verb: str, key: str, keys: Collection[str]) -> str:
    """Return a message that suggests some of a verb's dotted keys in place of an unknown one."""
    unknown = f"{verb} has no setting {key}="
    if verb == "train" and key in ANSWERS:
        return f"{unknown}. {ANSWERS[key]}"
    for pattern, name in OTHER_NAMES:
        renamed = re.sub(rf"^(?:{pattern})(?=\.|$)", name, key)
        if renamed != key and renamed in keys:
            return f"{unknown}; use {renamed}=."
    group = f"{key.partition('.')[0]}."
    own = [other.removeprefix(group) for other in keys if other.startswith(group)]
    near = [f"{group}{other}" for other in _near(key.removeprefix(group), own)]
    near += [other for other in keys if _leaf(other) == _leaf(key)]
    near = near or ([] if own else _near(key, keys))
    if near:
        return f"{unknown}; did you mean {', '.join(f'{other}=' for other in list(dict.fromkeys(near))[:4])}?"
    existing = ", ".join(f"{group}{other}=" for other in own if "." not in other)
    return f"{unknown}; {f'expected one of {existing}. ' * bool(own)}--cfg job lists every setting."


def _near(key: str, keys: Collection[str]) -> list[str]:
    return get_close_matches(key, keys, n=4) or [one for one in keys if get_close_matches(_leaf(key), [_leaf(one)])]


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _search_path(arguments: Sequence[str]) -> list[str]:
    return [argument for argument in arguments if _key(argument) == "hydra.searchpath"]


def _overrides(arguments: Sequence[str]) -> list[str]:
    """Return the overrides on a command line that are not of Hydra's own settings."""
    return [override for override in get_args(list(arguments)).overrides if not _key(override).startswith("hydra")]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _setting_keys(verb: str, overrides: Sequence[str] = ()) -> list[str]:
    """Return the dotted keys and the config groups of a verb."""
    try:
        config = compose(verb, *overrides)
    except (HydraException, OmegaConfBaseException, ValueError):  # another override is wrong, too
        config = compose(verb)
    defaults = OmegaConf.load(CONF / f"{verb}.yaml").defaults
    groups = [group for item in defaults if isinstance(item, DictConfig) for group in item]
    return [*dict.fromkeys([*_dotted_keys(OmegaConf.to_container(config)), *map(str, groups)])]


def _dotted_keys(node: object, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of nested settings, inner nodes included."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key != "_target_":
                yield f"{prefix}{key}"
                yield from _dotted_keys(value, f"{prefix}{key}.")
