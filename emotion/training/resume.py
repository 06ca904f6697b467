"""Whether a run may go on in its folder, and from where."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion.checkpoints.load import PREVIOUS_CHECKPOINT, check_classes, read_checkpoint
from emotion.checkpoints.locate import LAST_CHECKPOINT
from emotion.data.sources import locate
from emotion.errors import UserError
from emotion.records import run_record

if TYPE_CHECKING:
    from emotion.classifier import EmotionClassifier
    from emotion.data.datamodule import EmotionDataModule

Settings = dict[str, Any]
BY_DIGEST = ("source", "split", "cache_dir")
"""What a run's data is described by, and known by its digest."""
LIES = ("path", "root", "train", "val", "test", "votes", "data_dir")
"""Settings of a source that say where it lies, which may be elsewhere on another machine."""


def resumed(settings: Settings, run_dir: Path, *, first: bool) -> Settings:
    """The settings with `resume` decided: `auto` is the folder of the run where that has a checkpoint, else None.

    Only the `first` of a run's processes asks whose folder it is: the others find what it has written.

    Raises:
        UserError: the folder holds a run of other settings, or one that nobody asked to go on with.
    """
    former = run_record.read_record(run_dir) or {} if first else {}
    if settings["resume"] == "auto":
        check_recipe(former, settings)
        return settings | {"resume": str(run_dir) if (run_dir / LAST_CHECKPOINT).is_file() else None}
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


def last_good(run_dir: Path, classifier: "EmotionClassifier", data: "EmotionDataModule") -> Path:
    """The checkpoint that a run goes on from: its last one; where that is damaged or another run's, the one before.

    Raises:
        UserError: there is none, or none that is good.
    """
    reasons: list[str] = []
    for path in (run_dir / LAST_CHECKPOINT, run_dir / PREVIOUS_CHECKPOINT):
        try:
            if path.is_file():
                epoch = _checked(path, classifier, data)
                if reasons:
                    print(f"{reasons[0]}\nGoing on from {path}, of epoch {epoch + 1}.", flush=True)
                return path
        except UserError as error:
            reasons.append(str(error))
    if reasons:
        raise UserError("\n".join(dict.fromkeys(reasons)))
    raise UserError(f"{run_dir} has no {LAST_CHECKPOINT}: it stopped before its first checkpoint. Start it anew.")


def _checked(path: Path, classifier: "EmotionClassifier", data: "EmotionDataModule") -> int:
    """The epoch of a checkpoint that is of this run: the same network, recipe, seed and data."""
    content = read_checkpoint(path)
    check_classes(path, content["hyper_parameters"]["classes"], data.classes)
    data.load_state_dict(content["EmotionDataModule"])
    pairs = ((content["hyper_parameters"], classifier.hparams), (content["datamodule_hyper_parameters"], data.hparams))
    for theirs, own in pairs:
        differing = [key for key in theirs if key not in BY_DIGEST and theirs[key] != own.get(key)]
        if differing:
            raise UserError(
                f"{path} is of another run: its {', '.join(differing)} is not this one's. Restore it from a copy, or "
                f"start a new run."
            )
    return int(content["epoch"])


def check_recipe(former: Settings, settings: Settings) -> None:
    """Raises UserError where a run would go on in the folder of one of other settings."""
    if not former:
        return
    asked = settings if settings["labels"] else settings | {"labels": former["config"]["labels"]}  # which the data has
    differing = run_record.differing(former["config"], asked)
    differing += [] if _of_data(former["config"]["data"]) == _of_data(settings["data"]) else ["data"]
    differing += [key for key in ("seed", "tta") if former["config"][key] != settings[key]]
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
