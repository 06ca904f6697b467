"""Objects from plain config: {_target_: dotted name, arguments}. The one place where a config becomes code."""

from collections.abc import Mapping, Sequence
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException

from emotion.errors import UserError

ALLOWED = (
    "emotion.",
    "torch.nn.",
    "torch.optim.",
    "torchvision.transforms.v2.",
    "kornia.augmentation.",
    "lightning.pytorch.",
)
"""What a config may name. Nothing here opens a file as code, so a config from elsewhere cannot run anything."""


def build(config: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """What `config` describes, called with its own arguments and these; arguments with a `_target_` are built first.

    Unlike `hydra.utils.instantiate`, `args` and `kwargs` reach the target as they are, parameter groups included.

    Raises:
        UserError: a target outside the allowed packages, one that does not exist, or settings it does not take.
    """
    _check_targets(config)
    target = config["_target_"]
    try:
        return hydra.utils.instantiate(dict(config), _partial_=True, _convert_="all")(*args, **kwargs)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):  # from a part, which says it best
            raise error.__cause__ from None
        raise UserError(f"{target} cannot be built: {error.__cause__ or error}") from error
    except (TypeError, ValueError, IndexError, ArithmeticError, RuntimeError) as error:
        raise UserError(f"{target} was refused its settings: {error}") from error


def _check_targets(config: object) -> None:
    if isinstance(config, Mapping):
        target = config.get("_target_")
        if target is not None and not str(target).startswith(ALLOWED):
            raise UserError(
                f"_target_ {target!r} is not among what a config may build: {', '.join(f'{a}*' for a in ALLOWED)}."
            )
        for value in config.values():
            _check_targets(value)
    elif isinstance(config, Sequence) and not isinstance(config, str):
        for value in config:
            _check_targets(value)
