"""Resume a run from its stored config: the command line that `resume=RUN` stands for."""

import os
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from emotion.config import paths, untrusted
from emotion.config.compose import compose, quote
from emotion.config.migrate import migrate
from emotion.errors import UserError
from emotion.io.bounded import read_json_object
from emotion.io.digests import RECORD

ALLOWED = ("trainer.", "callbacks.", "logger.", "compile.", "tta=", "verbose=", "distillation.teacher=")


def use_stored_config(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of `train` with RUN's stored config and folder in the place of `resume=RUN`.

    Only settings of how, how long and where the run trains may be added. Arguments without a run to resume are returned
    as they are.

    Raises:
        UserError: RUN is not a run of this version, or a setting may not be added.
    """
    if "--config-path" in arguments and os.environ.get("LOCAL_RANK", "0") != "0":
        # started by the first process, which has stored the additions
        arguments = [argument for argument in arguments if argument[:1] not in ("+", "~")]
    resumes = [argument for argument in arguments if argument.startswith("resume=")]
    given = OverridesParser.create().parse_override(resumes[-1]) if resumes else None
    if given is None or given.value() in (None, "auto") or "--config-path" in arguments:
        return list(arguments)
    if given.is_sweep_override() or given.value() == "":
        raise UserError(f"{resumes[-1]}: expected the folder of one run: resume=outputs/NAME/TIME.")
    name = str(given.value())
    run = Path(name).absolute()
    _check_resumable(run, name)
    added = [argument for argument in arguments if argument not in resumes]
    if refused := [argument for argument in added if not _is_allowed(argument.lstrip("+~"))]:
        raise UserError(
            f"resume={name} continues with the run's own settings and cannot take {' '.join(refused)}; allowed "
            f"are settings that begin with {' '.join(ALLOWED)}, and the location of its data: data_dir=FOLDER."
        )
    folder = quote(str(run))
    location = [f"hydra.run.dir={folder}", "hydra/job_logging=none", "hydra.output_subdir=null", f"resume={folder}"]
    return ["--config-path", str(run / ".hydra"), "--config-name", "config", *added, *location]


def _is_allowed(override: str) -> bool:
    """Return whether a resumed run takes an override: where its files are, how and how long it trains."""
    return override.startswith((*ALLOWED, "split.exclude=")) or is_location(override)


def is_location(override: str) -> bool:
    """Return whether an override says where data or teachers are, whose digests each resumed run compares."""
    key = override.lstrip("+~").partition("=")[0]
    is_of_data = key == "cache_dir" or key.startswith("data")
    return key == "distillation.teacher" or (is_of_data and paths.is_path_setting("train", key))


def _check_resumable(run: Path, name: str) -> None:
    """Raise UserError unless a folder holds a run of this version's settings."""
    path = run / ".hydra" / "config.yaml"
    if not path.is_file():
        raise UserError(f"{name} is not a run: it has no .hydra/config.yaml. Expected a folder like outputs/NAME/TIME.")
    untrusted.check_run_config(path)
    stored = untrusted.read_config(path)
    if not isinstance(stored, dict) or migrate(stored) != stored or not compose("train").keys() == stored.keys():
        commit = read_json_object(run / RECORD).get("commit") if (run / RECORD).is_file() else None
        raise UserError(
            f"{name} was started by another version ({f'commit {commit}' if commit else 'of an unknown commit'}), "
            f"whose settings differ from this one's. Finish it with that version, or start a new run with "
            f"model.weights={name}."
        )
