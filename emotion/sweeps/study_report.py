"""What a search found: its best trial as a command, how it came there, and which settings mattered."""

import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from emotion import plots, run_records
from emotion.callbacks.pruning import storage_at
from emotion.cli import compose, near
from emotion.run_folder import RunState
from emotion.sweeps import study_plots
from emotion.sweeps.study import address, overrides

if TYPE_CHECKING:
    from optuna import Study

FEWEST = 10  # finished trials that can tell what mattered
HISTORY, IMPORTANCE = "study_history.png", "study_importance.png"


def write(folder: Path, found: Sequence[RunState]) -> None:
    """Print the best trial's command and what its settings are worth; draw the search."""
    import optuna
    from optuna.trial import TrialState

    cfg = OmegaConf.create(next(one.record["config"] for one in found if one.record.get("config", {}).get("study")))
    study = optuna.load_study(study_name=cfg.study.name, storage=storage_at(address(cfg, folder)))
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if not complete:
        return
    metric = cfg.monitor.metric
    best = study.best_trial
    said = f"best of {len(complete)} finished trials, by {metric} {best.value:.4f}"
    print(f"{said} (the best of many flatters): trial {best.user_attrs['slot']}. To train it, and read test:")
    print(f"  python -m emotion.train {command(study)}")
    trained = [one.record["config"] for one in found if one.record.get("config", {}).get("study")]
    for config in (one for one in trained if one["study"]["trial"] == best.user_attrs["slot"]):
        again = OmegaConf.to_container(
            compose("train", "name=NAME", "run_dir=RUN", *shlex.split(command(study))), resolve=True
        )
        if other := run_records.differing(config, again):  # type: ignore[arg-type]
            print(f"  with what the sweep's file says of {', '.join(other)} besides")
    picture = study_plots.history(study.get_trials(deepcopy=False), metric, study.direction.name.lower())
    plots.save(picture, folder / HISTORY)
    print(f"wrote {near(folder / HISTORY)}")
    if worth := importances(study):
        print("what mattered: " + ", ".join(f"{key} {100 * share:.0f} %" for key, share in worth.items()))
        plots.save(study_plots.importances(worth, metric, len(complete)), folder / IMPORTANCE)
        print(f"wrote {near(folder / IMPORTANCE)}")


def command(study: "Study") -> str:
    """The overrides of the best trial, to be typed: those of the search, and over them what the trial tried."""
    tried, fixed = overrides(study.best_trial), study.user_attrs["asked"]["fixed"]
    keys = {override.partition("=")[0] for override in tried}
    return shlex.join([*(one for one in fixed if one.partition("=")[0] not in keys), *tried])


def importances(study: "Study") -> dict[str, float]:
    """The share of each setting in how much the trials' scores differ (PED-ANOVA: Watanabe et al. 2023).

    Empty where there is nothing to tell yet: too few trials, or all alike.
    """
    import optuna

    if len(study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])) < FEWEST:
        return {}

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # the best trials are no others than the rest
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            return dict(optuna.importance.get_param_importances(study))
        except (ValueError, RuntimeError, UserWarning):
            return {}
