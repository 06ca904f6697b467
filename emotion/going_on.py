"""Whether a run may go on in its folder, and from where."""

from pathlib import Path
from typing import Any

from emotion import run_records
from emotion.checkpoints import LAST
from emotion.data.sources import locate
from emotion.errors import UserError

Settings = dict[str, Any]
LIES = ("path", "root", "train", "val", "test", "votes", "data_dir")
"""Settings of a source that say where it lies, which may be elsewhere on another machine."""


def resumed(settings: Settings, run_dir: Path, *, first: bool) -> Settings:
    """The settings with `resume` decided: `auto` is the folder of the run where that has a checkpoint, else None.

    Only the `first` of a run's processes asks whose folder it is: the others find what it has written.

    Raises:
        UserError: the folder holds a run of other settings, or one that nobody asked to go on with.
    """
    former = run_records.read_record(run_dir) or {} if first else {}
    if settings["resume"] == "auto":
        check_recipe(former, settings)
        return settings | {"resume": str(run_dir) if (run_dir / LAST).is_file() else None}
    if former and not settings["resume"]:
        raise UserError(
            f"{run_dir} holds a run already. Go on with it by resume={run_dir}, or give another folder: "
            f"hydra.run.dir=FOLDER."
        )
    return settings


def goes_no_further(former: Settings | None, settings: Settings) -> bool:
    """Whether a run that is resumed has all its epochs, and only its scores are missing.

    Raises:
        UserError: nothing is missing, or its learning rates are laid out for another number of epochs.
    """
    if former is None:
        return False
    before, now = (config["trainer"]["max_epochs"] for config in (former["config"], settings))
    if former.get("scores") is not None and before >= now:
        on = "raise trainer.max_epochs"
        if settings["scheduler"].get("interval") == "step":  # laid out for these epochs
            on = f"start another run with model.weights={settings['run_dir']}"
        raise UserError(f"{settings['run_dir']} is finished after {former['epochs']} epochs; to train on, {on}.")
    if settings["scheduler"].get("interval") == "step" and before != now:
        raise UserError(
            f"{settings['run_dir']}: its learning rates are laid out for {before} epochs, not for {now}; "
            f"start another run."
        )
    return "best" in former and before >= now


def check_recipe(former: Settings, settings: Settings) -> None:
    """Raises UserError where a run would go on in the folder of one of other settings."""
    if not former:
        return
    asked = settings if settings["labels"] else settings | {"labels": former["config"]["labels"]}  # which the data has
    differing = run_records.differing(former["config"], asked)
    differing += [] if _of_data(former["config"]["data"]) == _of_data(settings["data"]) else ["data"]
    differing += [key for key in ("seed", "views") if former["config"][key] != settings[key]]
    if differing:
        raise UserError(
            f"{settings['run_dir']} holds a run with another {', '.join(differing)}; give another folder: "
            f"hydra.run.dir=FOLDER, of a sweep hydra.sweep.dir=FOLDER."
        )


def check_stand_in(former: Settings, settings: Settings) -> None:
    """Raises UserError where drawn faces stood in for data that is there by now, or the other way round."""
    if former["data"]["stand_in"] != locate(settings["data"]).stand_in:
        raise UserError(
            f"{settings['run_dir']} was trained on {former['data']['source']}, which is not what is found now; give "
            f"another folder: hydra.run.dir=FOLDER, of a sweep hydra.sweep.dir=FOLDER."
        )


def _of_data(config: object) -> object:
    """What a source is, wherever it lies."""
    if not isinstance(config, dict):
        return config
    return {key: _of_data(value) for key, value in config.items() if key not in LIES}


def check_teachers(began: Settings | None, now: Settings | None) -> None:
    """Raises UserError where a run would go on with other teachers than it began with, wherever they lie by now."""
    before, after = (taught["teachers"] if taught else [] for taught in (began, now))
    if [one["sha256"] for one in before] != [one["sha256"] for one in after]:
        said = (", ".join(f"{one['path']} (epoch {one['epoch'] + 1})" for one in some) for some in (after, before))
        raise UserError(
            "distillation.teacher: found {}; the run began with {}, and not with the same file. "
            "Bring that back, or start a new run.".format(*(names or "none" for names in said))
        )
