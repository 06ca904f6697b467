"""The short recipe of a first training, on a machine without FER2013."""

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from emotion.cli import OVERRIDE, command_line, set_command_line
from emotion.config import help
from emotion.config.compose import compose
from emotion.data.sources import select_source
from emotion.errors import UserError

FIRST_RUN = "experiment=first_run"


def use_first_run_recipe() -> None:
    """Add `FIRST_RUN` to the command line if its runs will use synthetic faces because FER2013 is missing.

    Not if the command line has an experiment, or a stored config as that of a run to resume.
    """
    arguments = command_line()
    keys = {argument.lstrip("+").partition("=")[0] for argument in arguments}
    if keys & {"experiment", "--config-path"} or help.help_or_version("train", arguments):
        return
    try:
        data = compose("train", *(argument for argument in arguments if argument.startswith("data"))).data
        is_fallback = select_source(OmegaConf.to_container(data, resolve=True)).is_fallback  # type: ignore[arg-type]
    except (HydraException, OmegaConfBaseException, UserError):  # the run reports it
        return
    if is_fallback:
        first = next((i for i, argument in enumerate(arguments) if OVERRIDE.match(argument)), 0)
        set_command_line([*arguments[:first], FIRST_RUN, *arguments[first:]])  # Hydra takes overrides side by side


def announce_first_run() -> None:
    """Say that the settings are those of `FIRST_RUN` if the command line has it."""
    if FIRST_RUN in command_line():
        print(f"The settings are those of {FIRST_RUN}, a short recipe for synthetic faces.", flush=True)
