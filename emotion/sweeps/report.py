"""Report a sweep: unfinished runs and their errors, a ranking of the finished ones, and the result of a search."""

import shlex
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator
from omegaconf import OmegaConf

from emotion.callbacks.pruning import open_storage
from emotion.config.compose import compose
from emotion.config.instantiate import plugins_argument
from emotion.errors import counted
from emotion.io.figure import Figure
from emotion.records.recipe import recipe_differences
from emotion.records.run_folder import Run, find_runs
from emotion.reporting import figures, ranking
from emotion.reporting.tables import print_table
from emotion.reporting.text import relative_path
from emotion.sweeps.optuna_study import INDEX_ATTRIBUTE, SEARCH_ATTRIBUTE, storage_url, trial_overrides
from emotion.sweeps.sweep import Sweep

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

MAX_ROWS = 20
"""Rows of a printed table."""
MIN_TRIALS = 10
"""Finished trials from which parameter importances are computed."""
HISTORY, IMPORTANCE = "study_history.png", "study_importance.png"


def report_sweep(sweep: Sweep) -> bool:
    """Print the states of the runs and write ranking.csv and .md; return whether all are finished or pruned."""
    single = sweep.size == 1  # whose folder is that of the sweep if no setting has several values
    runs = [run for run in find_runs(sweep.folder) if single or run.folder != sweep.folder]
    parent = sweep.folder.parent if single else sweep.folder
    size = max(sweep.size, len(runs))  # a search may have had more trials
    counts = Counter(run.state for run in runs)
    counts["not started"] = size - len(runs)
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    print(f"\nsweep {relative_path(sweep.folder)}: {counted(size, 'run')}: {states}", flush=True)
    for run in [run for run in runs if run.state not in ("finished", "pruned", "empty")][:MAX_ROWS]:
        error = f": {run.error.splitlines()[-1]}" if run.error else ""
        print(f"  {run.folder.relative_to(parent)} {run.state}{error}")
    needed = sweep.size if sweep.study else size
    is_complete = counts["finished"] + counts["pruned"] >= needed
    if not is_complete:
        print("The same command runs the missing ones.")
    if finished := [run for run in runs if run.state == "finished"]:
        names = [_name(run, parent) for run in finished]
        tables = ranking.ranking_tables([run.record for run in finished], names)
        for title, rows in tables.items():
            print_table(title, rows[:MAX_ROWS], left=2)
        for path in ranking.write_ranking(tables, sweep.folder):
            print(f"wrote {relative_path(path)}")
    if any(run.record.study for run in runs):
        _report_study(sweep.folder, [run for run in runs if run.record.study])
    return is_complete


def _name(run: Run, folder: Path) -> str:
    """Return the overrides of a trial with three digits per number, or the name of the run's folder."""
    if not run.record.study:
        return str(run.folder.relative_to(folder))
    parts = []
    for override in run.record.study["overrides"]:
        key, _, value = override.partition("=")
        try:
            parts.append(f"{key}={float(value):.3g}")
        except ValueError:
            parts.append(override)
    return " ".join(parts)


def _report_study(folder: Path, runs: Sequence[Run]) -> None:
    """Print the best trial's command and the importances, and plot the history."""
    import optuna
    from optuna.trial import TrialState

    cfg = OmegaConf.create(runs[0].record.config)
    study = optuna.load_study(study_name=cfg.study.name, storage=open_storage(storage_url(cfg, folder)))
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if not complete:
        return
    metric, best, overrides = cfg.monitor.metric, study.best_trial, best_overrides(study)
    print(
        f"best of {counted(len(complete), 'finished trial')}, by {metric} {best.value:.4f} (optimistic, as the best of "
        f"many): trial {best.user_attrs[INDEX_ATTRIBUTE]}. To train it and evaluate it on test:\n"
        f"  python -m emotion.train {plugins_argument()}{shlex.join(overrides)}"
    )
    composed = OmegaConf.to_container(compose("train", "name=NAME", "run_dir=RUN", *overrides), resolve=True)
    for run in (run for run in runs if run.record.study["trial"] == best.user_attrs[INDEX_ATTRIBUTE]):
        if differences := recipe_differences(run.record.config, composed):  # type: ignore[arg-type]
            print(f"  and the settings of the sweep's file: {', '.join(differences)}")
    figure = plot_history(study.get_trials(deepcopy=False), metric, study.direction.name.lower())
    figures.save(figure, folder / HISTORY)
    print(f"wrote {relative_path(folder / HISTORY)}")
    if shares := importances(study):
        print("importance: " + ", ".join(f"{key} {100 * share:.0f} %" for key, share in shares.items()))
        figures.save(plot_importances(shares, metric, len(complete)), folder / IMPORTANCE)
        print(f"wrote {relative_path(folder / IMPORTANCE)}")


def best_overrides(study: "Study") -> list[str]:
    """Return the overrides of the best trial: those of the search, replaced by the trial's own."""
    own, shared = trial_overrides(study.best_trial), study.user_attrs[SEARCH_ATTRIBUTE]["fixed"]
    keys = {override.partition("=")[0] for override in own}
    return [*(override for override in shared if override.partition("=")[0] not in keys), *own]


def importances(study: "Study") -> dict[str, float]:
    """Return each setting's share of the variance between trials (PED-ANOVA: Watanabe et al. 2023).

    Empty if there are too few trials, or all scores are equal.
    """
    import optuna

    if len(study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])) < MIN_TRIALS:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # the best trials are the same as all
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            return dict(optuna.importance.get_param_importances(study))
        except (ValueError, RuntimeError, UserWarning):
            return {}


def plot_history(trials: Sequence["FrozenTrial"], metric: str, direction: str) -> Figure:
    """Plot the score of each finished trial, the best so far, and the last score of pruned trials."""
    from optuna.trial import TrialState

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    finished = [(t.number, t.value) for t in trials if t.state is TrialState.COMPLETE and t.value is not None]
    numbers, scores = (np.array(column, float) for column in zip(*finished, strict=True))
    best = (np.maximum if direction == "maximize" else np.minimum).accumulate(scores)
    axes.plot(numbers, scores, "o", color="C0", label="finished")
    axes.step(numbers, best, where="post", color="C1", label="best so far")
    pruned = [(t.number, list(t.intermediate_values.values())[-1]) for t in trials if t.state is TrialState.PRUNED]
    if pruned:
        axes.plot(*zip(*pruned, strict=True), "x", color="0.5", label="pruned, last score")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=metric)
    axes.set_title(
        f"{len(finished)} finished, {len(pruned)} pruned; the best of many is optimistic", fontsize=10, loc="left"
    )
    axes.legend(frameon=False)
    return figure


def plot_importances(shares: Mapping[str, float], metric: str, num_trials: int) -> Figure:
    """Plot a bar per setting, the most important at the top."""
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(shares)), layout="constrained")
    axes = figure.subplots()
    order = sorted(shares, key=lambda key: shares[key])
    bars = axes.barh(order, [100 * shares[key] for key in order], color="C0")
    axes.bar_label(bars, fmt="%.0f %%", padding=3)
    axes.set(xlabel=f"% of the variance of {metric}", xlim=(0, 112))
    axes.set_title(f"importance in {counted(num_trials, 'finished trial')} (PED-ANOVA)", fontsize=10, loc="left")
    return figure
