"""Figures of a run: confusion matrix, training history, calibration, robustness, faces with predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import NDArray

from emotion.io.figure import Figure
from emotion.io.picture import save_figure
from emotion.metrics.calibration import Reliability
from emotion.metrics.statistics import wilson_interval

LETTER_WIDTH = 0.09  # inches per letter of a tick label
CELL_WIDTH, MIN_COLUMNS = 1.5, 4  # of a sheet: inches per face, and faces whose width the title takes
CELL_HEIGHT, CELL_GAP = 1.25, 0.06  # relative to the width


def save(figure: Figure, path: Path, *, vector: bool = False) -> None:
    """Write a figure atomically in the format of the file extension; with `vector` a PDF beside it, for papers."""
    for one in (path, path.with_suffix(".pdf"))[: 1 + vector]:
        save_figure(figure, one)


def confusion_matrix(confusion: NDArray[np.int64], classes: Sequence[str], title: str) -> Figure:
    """Plot a confusion matrix (K, K), rows true and columns predicted, with percent of the row and number of faces."""
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = 1.2 + 0.8 * len(classes)
    names = LETTER_WIDTH * max(map(len, classes))
    figure = _framed(title, side + names, side + names, left=0.5 + names, bottom=0.6 + 0.75 * names)
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(share):
        axes.text(
            j, i, f"{100 * value:.1f}\n{confusion[i, j]}", ha="center", va="center", fontsize=8,
            color="white" if value > 0.55 else "black",
        )  # fmt: skip
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted: % of the row, faces", ylabel="true: each row is 100 %")
    return figure


def history(rows: Mapping[int, Mapping[str, float]], best_epoch: int | None = None, title: str = "") -> Figure:
    """Plot losses, scores and learning rates over the epochs (from 1) of a metrics.csv."""
    figure = _framed(title, 12, 3.6)
    losses, scores, rates = figure.subplots(1, 3, gridspec_kw={"wspace": 0.35})
    epochs = sorted(rows)
    names = sorted({name for row in rows.values() for name in row})
    lines: list[tuple[Axes, str, list[str], float]] = [
        (losses, "loss", [n for n in ("train/loss", "val/loss") if n in names], 1.0),
        (scores, "%", [n for n in ("train/acc", "val/acc", "train/macro_f1", "val/macro_f1") if n in names], 100.0),
        (rates, "learning rate", [n for n in names if n == "lr" or n.startswith("lr/")], 1.0),
    ]
    for axes, label, shown, factor in lines:
        for name in shown:
            values = [factor * rows[epoch].get(name, np.nan) for epoch in epochs]
            style = "--" if "macro_f1" in name else "-"
            color = "C0" if name.startswith("train") else "C1" if name.startswith("val") else None
            marker = "." if len(epochs) > 1 else "o" if style == "-" else "x"
            axes.plot(epochs, values, style, marker=marker, color=color, label=name.replace("_", " "))
        if best_epoch is not None:
            axes.axvline(best_epoch, color="gray", linewidth=0.8, linestyle=":", label="best")
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        if shown:
            axes.legend(fontsize=7, handlelength=3)  # long enough to show dashes
        axes.margins(x=0.05 if len(epochs) > 1 else 0.5)
    if any(row.get(name, 0) > 0 for row in rows.values() for name in lines[-1][2]):
        rates.set_yscale("log", nonpositive="mask")  # a rate may end at 0
        rates.yaxis.set_major_formatter(LogFormatter())  # the default one writes TeX, which is shown as it is
        rates.yaxis.set_minor_formatter(LogFormatter())
    return figure


def comparison(names: Sequence[str], scores: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Plot accuracy and macro F1 with 95 % intervals and F1 by class of several runs."""
    classes = list(dict.fromkeys(name for run_scores in scores for name in run_scores["classes"]))
    positions = range(len(names))
    figure = Figure(figsize=(12, 1.8 + 0.45 * len(names)), layout="constrained")
    accuracy, macro_f1, by_class = figure.subplots(1, 3, sharey=True, width_ratios=[1, 1, 1.6])
    for axes, key, label in ((accuracy, "accuracy", "accuracy %"), (macro_f1, "macro_f1", "macro F1 %")):
        for y, run_scores in zip(positions, scores, strict=True):
            value, *bounds = (100 * bound for bound in run_scores[key] if bound is not None)
            axes.plot(bounds, [y] * len(bounds), color=f"C{y}", linewidth=2)
            axes.plot(value, y, "o", color=f"C{y}")
            axes.annotate(f"{value:.1f}", (value, y), (0, 6), textcoords="offset points", ha="center", fontsize=8)
        axes.set_xlabel(f"{label}, 95 % interval")
        axes.grid(axis="x", alpha=0.3)
    accuracy.set_yticks(positions, names)
    accuracy.set_ylim(len(names) - 0.5, -0.7)
    f1 = np.array([[100 * f["classes"][c]["f1"][0] if c in f["classes"] else np.nan for c in classes] for f in scores])
    by_class.imshow(f1, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(f1):
        if not np.isnan(value):
            color = "white" if value > 55 else "black"
            by_class.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8, color=color)
    by_class.set_xticks(range(len(classes)), classes, rotation=30, ha="right")
    by_class.set_xlabel("F1 % by class")
    _set_title(figure, title)
    return figure


def reliability(after: Reliability, before: Reliability | None, accuracy: NDArray[np.float64], title: str) -> Figure:
    """Plot accuracy by confidence with the share of faces in each bin, and accuracy by coverage.

    Reliability is plotted with the temperature and, if there is one, without it. `accuracy` (N,) is that of the 1, 2,
    ..., N most confident faces.
    """
    figure = _framed(title, 10, 5.2)
    grid = figure.add_gridspec(2, 2, height_ratios=(4, 1), hspace=0.08)
    upper = figure.add_subplot(grid[0, 0])
    lower = figure.add_subplot(grid[1, 0], sharex=upper)
    by_coverage = figure.add_subplot(grid[:, 1])
    bins = len(after.faces)
    edges = np.linspace(0, 100, bins + 1)
    curves = {"with temperature" if before else "accuracy": after} | ({"without": before} if before else {})
    for color, (label, binned) in zip(("C0", "C1"), curves.items(), strict=False):
        occupied, share = binned.faces.numpy() > 0, binned.faces.numpy() / max(1, int(binned.faces.sum()))
        x, y = 100 * binned.confidence.numpy()[occupied], 100 * binned.accuracy.numpy()[occupied]
        intervals = np.array(
            [wilson_interval(*bin_) for bin_ in zip(binned.accuracy[occupied], binned.faces[occupied], strict=True)]
        )
        errors = 100 * np.abs(intervals[:, 1:] - intervals[:, :1]).T
        upper.errorbar(x, y, errors, marker="o", color=color, elinewidth=0.8, label=label)
        lower.stairs(100 * share, edges, fill=binned is after, color=color, alpha=0.8)
    upper.plot([0, 100], [0, 100], "--", color="gray", linewidth=0.8, label="calibrated")
    upper.set(ylabel="accuracy %", xlim=(0, 100), ylim=(0, 100))
    upper.tick_params(labelbottom=False)
    upper.legend(fontsize=8, loc="lower right")
    lower.set(xlabel=f"confidence %, {bins} bins", ylabel="faces %")
    coverage = 100 * np.arange(1, len(accuracy) + 1) / max(1, len(accuracy))
    by_coverage.plot(coverage, 100 * accuracy)
    by_coverage.set(
        xlabel="coverage: most confident % of the faces", ylabel="accuracy %", xlim=(0, 100), ylim=(None, 100.5)
    )
    for axes in (upper, lower, by_coverage):
        axes.grid(alpha=0.3)
    return figure


def robustness(accuracy: Mapping[str, Sequence[Sequence[float]]], uncorrupted: float, title: str) -> Figure:
    """Plot accuracy by severity for each corruption, given as [value, lower, upper] by severity."""
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for name, intervals in accuracy.items():
        values, lower, upper = 100 * np.array(intervals).T
        severities = range(len(intervals) + 1)
        style = "--" if name.endswith("covered") else "-"
        (line,) = axes.plot(severities, [100 * uncorrupted, *values], style, marker=".", label=name.replace("_", " "))
        axes.fill_between(severities[1:], lower, upper, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.axhline(100 * uncorrupted, color="gray", linewidth=0.8, linestyle=":")
    axes.set(xlabel="severity (0: uncorrupted)", ylabel="accuracy %, 95 % interval")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize=8)
    _set_title(figure, title)
    return figure


def faces(
    images: NDArray[np.uint8], captions: Sequence[str], correct: Sequence[bool], columns: int = 8, title: str = ""
) -> Figure:
    """Plot faces (N, H, W) or (N, H, W, 3) with captions, green for correct predictions and red for wrong ones."""
    columns = min(columns, max(MIN_COLUMNS, len(images)))
    rows = max(1, -(-len(images) // columns))
    width, height = CELL_WIDTH * columns, CELL_WIDTH * CELL_HEIGHT * rows
    figure = _framed(title, width, height + _title_height(title, width), left=0, right=0, bottom=0)
    axes = figure.subplots()  # one for the whole sheet: one per face takes a second longer
    axes.axis("off")
    for index, (image, caption, is_correct) in enumerate(zip(images, captions, correct, strict=True)):
        row, column = divmod(index, columns)
        bottom, side = (row + 1) * CELL_HEIGHT, 1 - CELL_GAP
        left = column + CELL_GAP / 2
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(left, left + side, bottom, bottom - side))
        color = "darkgreen" if is_correct else "firebrick"
        axes.text(column + 0.5, bottom - side - 0.02, caption, ha="center", va="bottom", fontsize=8, color=color)
    axes.set(xlim=(0, columns), ylim=(rows * CELL_HEIGHT, 0))
    return figure


def _framed(
    title: str, width: float, height: float, left: float = 0.7, right: float = 0.25, bottom: float = 0.6
) -> Figure:
    """Return a figure with fixed margins in inches; a constrained layout would draw everything twice."""
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - _title_height(title, width) / height)
    _set_title(figure, title)
    return figure


def _title_height(title: str, width: float) -> float:
    return 0.2 * len(_wrapped(title, width)) + 0.15


def _wrapped(title: str, inches: float) -> list[str]:
    return [part for line in title.splitlines() for part in wrap(line, int(11 * inches))]


def _set_title(figure: Figure, title: str) -> None:
    """Set a title whose lines are no longer than the figure is wide."""
    figure.suptitle("\n".join(_wrapped(title, figure.get_figwidth())), fontsize=10)
