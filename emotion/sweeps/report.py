"""What came of a sweep: which runs are missing and why, the ranking of the others, and what a search found."""

import shlex
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from omegaconf import OmegaConf

from emotion.callbacks.pruning import storage_at
from emotion.config.compose import compose
from emotion.records import run_folder, run_record
from emotion.records.run_folder import RunState
from emotion.reporting import figures, ranking
from emotion.reporting.tables import print_table
from emotion.reporting.text import near
from emotion.sweeps.optuna_study import address, overrides
from emotion.sweeps.sweep import Sweep

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


FEWEST = 10  # finished trials that can tell what mattered
HISTORY, IMPORTANCE = "study_history.png", "study_importance.png"


def write_study(folder: Path, found: Sequence[RunState]) -> None:
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
        if other := run_record.differing(config, again):  # type: ignore[arg-type]
            print(f"  with what the sweep's file says of {', '.join(other)} besides")
    picture = history(study.get_trials(deepcopy=False), metric, study.direction.name.lower())
    figures.save(picture, folder / HISTORY)
    print(f"wrote {near(folder / HISTORY)}")
    if worth := importances(study):
        print("what mattered: " + ", ".join(f"{key} {100 * share:.0f} %" for key, share in worth.items()))
        figures.save(importance_figure(worth, metric, len(complete)), folder / IMPORTANCE)
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


SHOWN = 20


def write(sweep: Sweep) -> bool:
    """Print what became of the runs, and write ranking.csv and .md; whether all are finished or pruned."""
    found = [one for one in run_folder.below(sweep.folder) if one.folder != sweep.folder]
    counted = Counter(one.state for one in found)
    counted["not begun"] = max(0, sweep.size - len(found))
    parts = ", ".join(f"{n} {state}" for state, n in counted.items() if n)
    print(f"\nsweep {near(sweep.folder)}: {sweep.size} runs: {parts}", flush=True)
    for one in [one for one in found if one.state not in ("finished", "pruned", "empty")][:SHOWN]:
        last = f": {one.why.splitlines()[-1]}" if one.why else ""
        print(f"  {one.folder.relative_to(sweep.folder)} {one.state}{last}")
    whole = counted["finished"] + counted["pruned"] == sweep.size
    if not whole:
        print("The same command runs what is missing.")
    finished = [one for one in found if one.state == "finished"]
    if finished:
        rows = ranking.ranked([one.record for one in finished], [_named(one, sweep.folder) for one in finished])
        print_table(ranking.TITLE, rows[:SHOWN], left=2)
        written = ranking.write(rows, sweep.folder)
        print("\n".join(f"wrote {near(path)}" for path in written))
    if any(one.record.get("config", {}).get("study") for one in found):
        write_study(sweep.folder, found)
    return whole


def _named(one: RunState, folder: Path) -> str:
    """What tells a run from the others: what a study had it try, or what its folder is named by."""
    study = one.record["config"].get("study")
    return " ".join(map(_short, study["tried"])) if study else str(one.folder.relative_to(folder))


def _short(override: str) -> str:
    """A number with no more digits than a reader wants."""
    key, _, value = override.partition("=")
    try:
        return f"{key}={float(value):.3g}"
    except ValueError:
        return override


def history(trials: Sequence["FrozenTrial"], metric: str, direction: str) -> Figure:
    """Each finished trial's score in the order of their numbers, the best so far, and where others were pruned."""
    from optuna.trial import TrialState

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    done = [(t.number, t.value) for t in trials if t.state is TrialState.COMPLETE and t.value is not None]
    numbers, scores = (np.array(column, float) for column in zip(*done, strict=True))
    best = (np.maximum if direction == "maximize" else np.minimum).accumulate(scores)
    axes.plot(numbers, scores, "o", color="C0", label="finished")
    axes.step(numbers, best, where="post", color="C1", label="best so far")
    left = [(t.number, list(t.intermediate_values.values())[-1]) for t in trials if t.state is TrialState.PRUNED]
    if left:
        axes.plot(*zip(*left, strict=True), "x", color="0.5", label="pruned, its last score")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=metric)
    axes.set_title(f"{len(done)} finished, {len(left)} pruned; the best of many flatters", fontsize=10, loc="left")
    axes.legend(frameon=False)
    return figure


def importance_figure(shares: Mapping[str, float], metric: str, trials: int) -> Figure:
    """A bar for each setting, the weightiest on top."""
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(shares)), layout="constrained")
    axes = figure.subplots()
    order = sorted(shares, key=lambda key: shares[key])
    bars = axes.barh(order, [100 * shares[key] for key in order], color="C0")
    axes.bar_label(bars, fmt="%.0f %%", padding=3)
    axes.set(xlabel=f"% of what {metric} differs by", xlim=(0, 112))
    axes.set_title(f"what mattered, by {trials} finished trials (PED-ANOVA)", fontsize=10, loc="left")
    return figure
