"""A verb's config as a dataclass, its types checked before any work starts."""

from typing import TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, ValidationError

from emotion.errors import UserError

Config = TypeVar("Config")


def typed(cfg: DictConfig, kind: type[Config]) -> Config:
    """Resolve `cfg` into the dataclass `kind`, whose fields name and type the verb's settings.

    A field may be a scalar, an optional, a list, `dict[str, Any]` for a config group, or `Any` where a setting takes
    several types.

    Raises:
        UserError: a setting has the wrong type or is not a field.
        MissingMandatoryValue: a setting without a default was not given.
    """
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(kind), OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
        )
    except (ConfigKeyError, ValidationError) as error:
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}. --cfg job lists every setting.") from error
    result: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
    return result
