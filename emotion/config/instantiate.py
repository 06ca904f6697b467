"""Objects from plain config: {_target_: dotted name, arguments}. The one place where a config becomes code."""

from collections.abc import Iterator, Mapping, Sequence
from inspect import isclass, isfunction
from typing import Any, NoReturn, TypeGuard

import hydra.utils
from hydra.errors import InstantiationException

from emotion.errors import REFUSALS, UserError

ALLOWED = (
    "emotion.callbacks.",
    "emotion.data.",
    "emotion.explainers.",
    "emotion.inference.detectors.",
    "emotion.loggers.",
    "emotion.models.",
    "emotion.optim.",
    "emotion.training.distillation.",
    "kornia.augmentation.",
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
    "lightning.pytorch.profilers.",
    "lightning.pytorch.strategies.",
    "lightning.pytorch.trainer.",
    "optuna.pruners.",
    "timm.optim.",
    "torch.nn.modules.",
    "torch.optim.",
    "torchvision.transforms.v2.",
)
"""Where the classes and functions that a config names must be defined, by whatever name it reaches them. Nothing there
opens a file as code, so a config from elsewhere cannot run anything."""

PACKAGES = tuple({f"{package.split('.')[0]}." for package in ALLOWED})


def instantiate(config: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """What `config` describes, called with its own arguments and these; arguments with a `_target_` are built first.

    Unlike `hydra.utils.instantiate`, `args` and `kwargs` reach the target as they are, parameter groups included.

    Raises:
        UserError: a target outside the allowed packages, one that does not exist, or settings it does not take.
    """
    check_targets(config)
    target = config.get("_target_") if isinstance(config, Mapping) else None
    if target is None:
        raise UserError(f"Found {config!r} where a part is described; expected its _target_ and its settings.")
    try:
        return hydra.utils.instantiate(dict(config), _partial_=True, _convert_="all")(*args, **kwargs)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):  # from a part, which says it best
            raise error.__cause__ from None
        raise UserError(f"{target} cannot be built: {error.__cause__ or error}") from error
    except REFUSALS as error:
        raise UserError(f"{target} was refused its settings: {error}") from error


def check_targets(config: object) -> None:
    """Refuse a config, at any depth, that names what it may not.

    Raises:
        UserError: naming the target that is not among the parts, or is not there.
    """
    for target in targets(config):
        if not _is_public(target) or not f"{target}.".startswith(PACKAGES):  # before anything is imported
            _refuse(target)
        try:
            found = hydra.utils.get_object(target)
        except Exception as error:  # Hydra's own, and whatever importing raises
            raise UserError(f"_target_ {target} is not there: {str(error).splitlines()[0]}") from error
        home = f"{getattr(found, '__module__', None)}."
        if not (isclass(found) or isfunction(found)) or not home.startswith(ALLOWED):
            _refuse(target)


def _is_public(target: object) -> TypeGuard[str]:
    """Whether it is a dotted name of which no part is private."""
    return isinstance(target, str) and all(part.isidentifier() and part[0] != "_" for part in target.split("."))


def _refuse(target: object) -> NoReturn:
    raise UserError(
        f"_target_ {target!r} is not among what a config may build: classes and functions of "
        f"{', '.join(f'{package}*' for package in ALLOWED)}."
    )


def targets(config: object) -> Iterator[object]:
    """Every `_target_` in a config, at any depth."""
    pending, seen = [config], set[int]()
    while pending:
        one = pending.pop()
        if id(one) in seen:  # which a config from elsewhere may hold itself
            continue
        if isinstance(one, Mapping):
            if one.get("_target_") is not None:
                yield one["_target_"]
            pending += reversed(list(one.values()))
        elif isinstance(one, Sequence) and not isinstance(one, str):
            pending += reversed(one)
        else:
            continue
        seen.add(id(one))
