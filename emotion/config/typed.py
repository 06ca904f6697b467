"""Convert a verb's config to a dataclass, checking its types before any work starts."""

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, ValidationError

from emotion.config.compose import as_yaml, escape
from emotion.errors import UserError

Config = TypeVar("Config")
ACCELERATORS = ("auto", "cpu", "gpu")
EVALUATION_PRECISIONS = ("auto", "32-true", "bf16-mixed")
KINDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", list: "a list"}
"""Types of fields, in words."""


def typed(cfg: DictConfig, kind: type[Config]) -> Config:
    """Resolve `cfg` into the dataclass `kind`, whose fields name and type the verb's settings.

    A field may be a scalar, an optional, a list, `dict[str, Any]` for a config group, or `Any` where a setting takes
    several types.

    Raises:
        UserError: A setting has the wrong type or is not a field.
        MissingMandatoryValue: A setting without a default is missing.
    """
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    for field in fields(kind):  # type: ignore[arg-type]
        value = settings.get(field.name, False)
        if field.type is bool and not isinstance(value, bool):  # OmegaConf takes 5 for true
            raise UserError(f"{field.name}={as_yaml(value)}: expected true or false.")
        has_keys = any(is_dataclass(one) for one in (field.type, *get_args(field.type))) or "dict" in str(field.type)
        if has_keys and not isinstance(settings.get(field.name), dict | None):  # OmegaConf asserts it
            raise UserError(f"{field.name}={as_yaml(value)}: expected settings, {field.name}.KEY=VALUE.")
    settings = _escape_all(settings)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.create(settings))
    except ConfigKeyError as error:
        near = get_close_matches(str(error.full_key), [field.name for field in fields(kind)], n=1)  # type: ignore[arg-type]
        meant = f"did you mean {near[0]}=? " if near else ""
        raise UserError(f"{error.full_key}= is not a setting; {meant}--cfg job lists every setting.") from error
    except ValidationError as error:
        key = str(error.full_key)
        value = OmegaConf.select(OmegaConf.create(settings), key)
        raise UserError(f"{key}={as_yaml(value)}: expected {_expected(kind, key)}.") from error
    result: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
    return result


def _expected(kind: Any, key: str) -> str:  # noqa: ANN401
    """Return in words the type of the field that a key such as limits.timeout or rows[0] of a dataclass leads to."""
    for part in re.findall(r"[^.\[\]]+", key):
        kind = get_type_hints(kind)[part] if is_dataclass(kind) else get_args(kind)[-1]  # of a list or a dict
        kind, *others = get_args(kind) if type(None) in get_args(kind) else (kind,)
    words = KINDS.get(get_origin(kind) or kind, f"settings, {key}.KEY=VALUE")
    return f"{words} or null" if others else words


def _escape_all(value: Any) -> Any:  # noqa: ANN401
    """Escape the resolved texts of a setting, so that they are not interpolated again."""
    if isinstance(value, dict):
        return {key: _escape_all(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(_escape_all, value))
    return escape(value) if isinstance(value, str) else value


def check_choices(config: object, **choices: Sequence[str]) -> None:
    """Raise UserError if a setting of a verb's config is not among its choices."""
    for name, expected in choices.items():
        if (value := getattr(config, name)) not in expected:
            raise UserError(f"{name}={value}: expected {', '.join(expected)}.")
