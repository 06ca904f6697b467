"""What a command line says of a sweep, before Hydra takes it: its runs, and the folder that they lie in."""

import json
import math
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from emotion.cli import MULTIRUN
from emotion.config.compose import CONF
from emotion.errors import UserError
from emotion.io.atomic import write_text

SWEEP = "sweep.json"
WHERE = "hydra.sweep.dir"
TOLD = ("study.space", "study.fixed", WHERE)
NOT_OF_THE_RUNS = ("hydra.launcher", "hydra/launcher", "study.trials")
"""How many are run, and by what, does not make it another sweep."""
OF_SEVERAL_SYSTEMS = {"model", "experiment", "name"}


class Sweep(NamedTuple):
    """The runs that one command asks for."""

    folder: Path
    asked: list[str]  # the overrides that make it this sweep and no other
    size: int  # runs
    went_before: bool  # some of it was begun by the same command
    study: DictConfig | None  # its config, of a search


class Asked(NamedTuple):
    """What a command line holds, as Hydra reads it."""

    fixed: dict[str, Override]  # by what they set
    swept: dict[str, Override]  # those of sweep=NAME among them
    cfg: DictConfig  # of the fixed ones


def of_command_line() -> Sweep | None:
    """The sweep that `-m` or `sweep=NAME` asks for, None where there is none; `sys.argv` then names its folder.

    The same command again is the same sweep: it goes on in the folder where it began, unless `hydra.sweep.dir` is
    given. What all runs share is left out of the names of their folders. A sweep over several systems is no system's:
    its folder is outputs/sweep/<time>, where otherwise it is below the one's.
    """
    flags = [argument for argument in sys.argv[1:] if argument in MULTIRUN]
    rest = [argument for argument in sys.argv[1:] if argument not in MULTIRUN]
    sys.argv[1:] = [*flags, *rest]  # the order that Hydra takes
    asked = None if any(argument.startswith("-") for argument in rest) else _read(rest)  # --help, --cfg and the like
    if asked is None or not (flags or "sweep" in asked.fixed):
        return None
    fixed, swept, cfg = asked
    study = OmegaConf.select(cfg, "study")
    identity = sorted(argument for argument in rest if not argument.lstrip("+~").startswith(NOT_OF_THE_RUNS))
    folder = Path(cfg.hydra.sweep.dir) if WHERE in fixed or study is not None else _former(identity) or _new(asked)
    shared = sorted(fixed.keys() | (swept.keys() if study is not None else set()))
    if study is None:
        size = math.prod(len(list(one.sweep_string_iterator())) for one in swept.values())
    else:
        size = int(study.trials)
        sys.argv[1:] = [*flags, *_searching(asked)]
    sys.argv.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join([*shared, *TOLD])}]")
    sys.argv.append(f"{WHERE}='{folder}'")
    return Sweep(folder, identity, size, (folder / SWEEP).is_file(), cfg if study is not None else None)


def _read(arguments: Sequence[str]) -> Asked | None:
    """None where Hydra will say what is wrong."""
    try:
        given = {one.key_or_group: one for one in parsed(arguments)}
        fixed = {key: one for key, one in given.items() if not one.is_sweep_override()}
        cfg = _composed([str(one.input_line) for one in fixed.values()])
        of_file = [f"{key}={value}" for key, value in (cfg.hydra.sweeper.params or {}).items()]
        if OmegaConf.select(cfg, "study") is not None:
            of_file = list(cfg.study.space)
        swept = {one.key_or_group: one for one in parsed(of_file) if one.key_or_group not in fixed}
        swept |= {key: one for key, one in given.items() if one.is_sweep_override()}
    except (HydraException, OmegaConfBaseException, TypeError, ValueError):
        return None
    return Asked(fixed, swept, cfg)


def _searching(asked: Asked) -> list[str]:
    """The overrides of a search, which is told what to try and what all its runs have in common.

    Hydra's own sweeper takes no intervals.
    """
    study, kept = asked.cfg.study, [str(one.input_line) for one in asked.fixed.values()]
    study.space = [str(one.input_line) for one in asked.swept.values()]
    study.fixed = [str(one.input_line) for one in asked.fixed.values() if not _of_the_sweep(one)]
    return [*kept, *(f"study.{name}=[{','.join(map(_quoted, study[name]))}]" for name in ("space", "fixed"))]


def _new(asked: Asked) -> Path:
    """A folder that is not there yet."""
    several = asked.swept.keys() & OF_SEVERAL_SYSTEMS and "name" not in asked.fixed
    name = "sweep" if several else Path(asked.cfg.hydra.sweep.dir).parent.name
    folder = Path("outputs") / name / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    while folder.exists():  # of another command in the same second
        folder = folder.with_name(f"{folder.name}_")
    return folder


def check(sweep: Sweep) -> None:
    """Raises UserError where another sweep lies in the folder; a search tells by itself whether it is the same."""
    former = _asked_in(sweep.folder / SWEEP)
    if former not in (None, sweep.asked) and not sweep.study:
        raise UserError(
            f"{sweep.folder} is of another sweep: {' '.join(former)}; give another folder: hydra.sweep.dir=FOLDER."
        )


def note(sweep: Sweep) -> None:
    """Leave in the sweep's folder what was asked for, so that the same command finds it again."""
    sweep.folder.mkdir(parents=True, exist_ok=True)
    write_text(sweep.folder / SWEEP, json.dumps({"asked": sweep.asked, "runs": sweep.size}, indent=2) + "\n")


def parsed(lines: Sequence[str]) -> list[Override]:
    """Overrides as Hydra understands them.

    Raises:
        HydraException: one cannot be read.
    """
    return OverridesParser.create().parse_overrides(list(lines))


def _of_the_sweep(override: Override) -> bool:
    key = str(override.key_or_group)
    return key in ("sweep", "pruner", "resume") or key.startswith(("study.", "hydra"))


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _composed(overrides: list[str]) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", overrides=overrides, return_hydra_config=True)


def _former(asked: list[str]) -> Path | None:
    """The newest folder in which the same was asked for."""
    found = sorted(Path("outputs").glob(f"*/*/{SWEEP}"), key=lambda path: path.parent.name)
    same = [path for path in found if _asked_in(path) == asked]
    return same[-1].parent if same else None


def _asked_in(path: Path) -> list[str] | None:
    try:
        found: list[str] = json.loads(path.read_text())["asked"]
        return found
    except (ValueError, KeyError, TypeError, OSError):  # not ours, or spoilt
        return None
