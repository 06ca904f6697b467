"""Pictures of a search. Every function returns a Figure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


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


def importances(shares: Mapping[str, float], metric: str, trials: int) -> Figure:
    """A bar for each setting, the weightiest on top."""
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(shares)), layout="constrained")
    axes = figure.subplots()
    order = sorted(shares, key=lambda key: shares[key])
    bars = axes.barh(order, [100 * shares[key] for key in order], color="C0")
    axes.bar_label(bars, fmt="%.0f %%", padding=3)
    axes.set(xlabel=f"% of what {metric} differs by", xlim=(0, 112))
    axes.set_title(f"what mattered, by {trials} finished trials (PED-ANOVA)", fontsize=10, loc="left")
    return figure
