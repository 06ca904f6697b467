"""Instantiate objects from plain config: a mapping with `_target_`, a dotted name, and its arguments."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from inspect import isclass, isfunction
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, NoReturn, TypeGuard

import hydra.utils
from hydra.errors import InstantiationException

from emotion.errors import REFUSALS, UserError, first_line

ALLOWED = (
    "emotion.callbacks.",
    "emotion.data.",
    "emotion.explainers.",
    "emotion.inference.blazeface.",
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
"""Modules whose classes and functions a config may name; none of them executes files, so that no config runs code."""

PACKAGES = tuple({f"{package.split('.')[0]}." for package in ALLOWED})
PLUGINS = "EMOTION_PLUGINS"
"""Environment variable that passes the user's own modules on to further processes of a run."""


def plugins() -> tuple[str, ...]:
    """Return the prefixes of targets in the user's own modules, as named by `plugins=` on the command line."""
    return tuple(f"{name}." for name in os.environ.get(PLUGINS, "").split(",") if name)


def plugins_argument(*configs: object) -> str:
    """Return `plugins=[MODULE] `, with which the arguments of a printed command begin; empty without plugins.

    With `configs` only the modules of their targets, which are all that the command needs.
    """
    used = [prefix for prefix in plugins() if not configs or any(str(t).startswith(prefix) for t in targets(configs))]
    return f"plugins=[{','.join(prefix[:-1] for prefix in used)}] " if used else ""


def allow_plugins(modules: Sequence[str]) -> None:
    """Allow targets in the user's own modules, which are in the working directory or installed.

    Raises:
        UserError: A module cannot be imported, or belongs to Python or to a library of `ALLOWED`.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for name in modules:
        if (module := name.removesuffix(".py").strip("./").replace("/", ".")) != name:
            raise UserError(f"plugins={name}: expected the name of a module: plugins=[{module}].")
        if not _may_be_own(name):
            raise UserError(f"plugins={name}: expected a module of your own, not one of Python or of a library.")
        try:
            import_module(name)
        except Exception as error:  # whatever the module raises
            raise UserError(f"plugins={name}: cannot be imported from {Path.cwd()}: {_reason(error)}.") from error
    os.environ[PLUGINS] = ",".join(dict.fromkeys([*(prefix[:-1] for prefix in plugins()), *modules]))


def advise_plugin(target: str) -> str:
    """Return a sentence on how to allow a target; empty if it cannot be in a module of the user's own."""
    module = target.rpartition(".")[0]
    return f" A module of your own: plugins=[{module}]." if _is_public(module) and _may_be_own(module) else ""


def instantiate(config: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """Call the target of `config` with its arguments, `args` and `kwargs`; nested targets are instantiated first.

    Unlike `hydra.utils.instantiate`, `args` and `kwargs` are passed on unchanged (parameter groups, for example).

    Raises:
        UserError: The target is not allowed, does not exist, refuses its arguments, or needs another package.
    """
    check_targets(config)
    target = config.get("_target_") if isinstance(config, Mapping) else None
    if target is None:
        raise UserError(f"Found {config!r}, expected a mapping with _target_ and its arguments.")
    try:
        return hydra.utils.instantiate(dict(config), _partial_=True, _convert_="all")(*args, **kwargs)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"{target} cannot be instantiated: {error.__cause__ or error}") from error
    except ImportError as error:
        raise UserError(f"{target} needs a package that is not installed: {error}") from error
    except REFUSALS as error:
        raise UserError(f"{target} refuses its arguments: {error}") from error


def network_name(model: Mapping[str, Any]) -> str:
    """Return the name of the network that a `model` config describes: of its timm backbone, or of its class."""
    return str(model.get("backbone") or model["_target_"].rpartition(".")[2])


def check_targets(config: object) -> None:
    """Check every target in a config, at any depth.

    Raises:
        UserError: Naming a target that is not allowed or does not exist.
    """
    for target in targets(config):
        if not _is_public(target) or not f"{target}.".startswith((*PACKAGES, *plugins())):  # before importing anything
            _refuse(target)
        found = _locate(target)
        module = f"{getattr(found, '__module__', None)}."  # where it is defined, whatever name led to it
        if not (isclass(found) or isfunction(found)) or not module.startswith((*ALLOWED, *plugins())):
            _refuse(target)


def targets(config: object) -> Iterator[object]:
    """Yield every `_target_` in a config, at any depth."""
    pending, visited = [config], set[int]()
    while pending:
        node = pending.pop()
        if id(node) in visited:  # a config of unknown origin may contain itself
            continue
        if isinstance(node, Mapping):
            if node.get("_target_") is not None:
                yield node["_target_"]
            pending += reversed(list(node.values()))
        elif isinstance(node, Sequence) and not isinstance(node, str):
            pending += reversed(node)
        else:
            continue
        visited.add(id(node))


def _locate(target: str) -> object:
    """Import what a dotted name names; UserError with the nearest name if it does not exist."""
    names = target.split(".")
    found: object = None
    for depth, name in enumerate(names):
        path, parent = ".".join(names[: depth + 1]), ".".join(names[:depth])
        if not hasattr(found, name):
            try:
                import_module(path)
            except Exception as error:  # whatever the module raises
                if not isinstance(error, ModuleNotFoundError) or not f"{path}.".startswith(f"{error.name}."):
                    raise UserError(f"_target_ {target}: {path} cannot be imported: {_reason(error)}.") from error
                modules = [module.name for module in iter_modules(getattr(found, "__path__", ()))]
                known = (
                    [key for key, value in vars(found).items() if isclass(value) or isfunction(value)] if parent else []
                )
                near = get_close_matches(name, [*known, *modules], n=1)
                advice = f"did you mean {near[0]}?" if near else "name a class or function that exists."
                raise UserError(f"_target_ {target}: {parent or 'Python'} has no {name}; {advice}") from error
        found = getattr(found, name) if parent else sys.modules[path]
    return found


def _reason(error: Exception) -> str:
    """Return what an import raised, in one line."""
    if isinstance(error, SyntaxError):
        return f"{error.filename} line {error.lineno}: {error.msg}"
    return f"{type(error).__name__}: {first_line(error)}"


def _is_public(target: object) -> TypeGuard[str]:
    """Return whether it is a dotted name without private parts."""
    return isinstance(target, str) and all(part.isidentifier() and part[0] != "_" for part in target.split("."))


def _may_be_own(module: str) -> bool:
    root = module.partition(".")[0]
    return root not in sys.stdlib_module_names and f"{root}." not in PACKAGES


def _refuse(target: object) -> NoReturn:
    raise UserError(
        f"_target_ {target!r} is not allowed; a config may name classes and functions of "
        f"{', '.join(f'{package}*' for package in ALLOWED)}.{advise_plugin(str(target))}"
    )
