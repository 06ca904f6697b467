"""Pictures of a run: confusion, history, confidence, faces with their predictions. Every function returns a Figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from emotion.io.atomic import write_atomically
from emotion.metrics.calibration import Reliability
from emotion.metrics.statistics import wilson

LETTER = 0.09  # inches of a letter of a tick's label
FACE_INCHES, FACE_HIGH, FACE_GAP = 1.5, 1.25, 0.06  # of a sheet: from face to face; of that, down and between them


def save(figure: Figure, path: Path) -> None:
    """As the file type that the name says, whole or not at all."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=150))


def confusion_matrix(confusion: NDArray[np.int64], classes: Sequence[str], title: str) -> Figure:
    """Rows true, columns predicted; shade and upper figure are shares of the row, the lower figure the faces."""
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = 1.2 + 0.8 * len(classes)
    names = LETTER * max(map(len, classes))
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
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def history(rows: Mapping[int, Mapping[str, float]], best_epoch: int | None = None) -> Figure:
    """Loss, accuracy with macro F1, and learning rates over the epochs of a metrics.csv, counted from 1."""
    figure = _framed("", 12, 3.6)
    losses, scores, rates = figure.subplots(1, 3, gridspec_kw={"wspace": 0.25})
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
            colour = "C0" if name.startswith("train") else "C1" if name.startswith("val") else None
            axes.plot([e + 1 for e in epochs], values, style, marker=".", color=colour, label=name.replace("_", " "))
        if best_epoch is not None:
            axes.axvline(best_epoch + 1, color="grey", linewidth=0.8, linestyle=":", label="best")
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if shown:
            axes.legend(fontsize=7)
    if any(row.get(name, 0) > 0 for row in rows.values() for name in lines[-1][2]):
        rates.set_yscale("log", nonpositive="mask")  # a rate that ends at nothing
    return figure


def comparison(names: Sequence[str], scores: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Runs side by side: accuracy, macro F1 with their 95 % intervals, and F1 by class."""
    classes = list(dict.fromkeys(name for found in scores for name in found["classes"]))
    places = range(len(names))
    figure = Figure(figsize=(12, 1.8 + 0.45 * len(names)), layout="constrained")
    accuracy, macro_f1, by_class = figure.subplots(1, 3, sharey=True, width_ratios=[1, 1, 1.6])
    for axes, key, label in ((accuracy, "accuracy", "accuracy %"), (macro_f1, "macro_f1", "macro F1 %")):
        for place, found in zip(places, scores, strict=True):
            figure_, low, high = (100 * value for value in found[key])
            axes.plot([low, high], [place, place], color=f"C{place}", linewidth=2)
            axes.plot(figure_, place, "o", color=f"C{place}")
            axes.annotate(
                f"{figure_:.1f}", (figure_, place), (0, 6), textcoords="offset points", ha="center", fontsize=8
            )
        axes.set_xlabel(f"{label}, 95 % interval")
        axes.grid(axis="x", alpha=0.3)
    accuracy.set_yticks(places, names)
    accuracy.set_ylim(len(names) - 0.5, -0.7)
    f1 = np.array([[100 * f["classes"][c]["f1"][0] if c in f["classes"] else np.nan for c in classes] for f in scores])
    by_class.imshow(f1, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(f1):
        if not np.isnan(value):
            colour = "white" if value > 55 else "black"
            by_class.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8, color=colour)
    by_class.set_xticks(range(len(classes)), classes, rotation=30, ha="right")
    by_class.set_xlabel("F1 % by class")
    _entitle(figure, title)
    return figure


def reliability(after: Reliability, before: Reliability | None, accuracy: NDArray[np.float64], title: str) -> Figure:
    """Accuracy by confidence, with the share of the faces below, and the accuracy of the surest faces by their share.

    Args:
        after: of the probabilities as they are.
        before: of what they would be without a temperature; None where there is none.
        accuracy: of the 1, 2, ..., N surest faces.
        title: above all.
    """
    figure = _framed(title, 10, 5.2)
    grid = figure.add_gridspec(2, 2, height_ratios=(4, 1), hspace=0.08)
    upper = figure.add_subplot(grid[0, 0])
    lower = figure.add_subplot(grid[1, 0], sharex=upper)
    surest = figure.add_subplot(grid[:, 1])
    bins = len(after.faces)
    edges = np.linspace(0, 100, bins + 1)
    shown = {"with temperature" if before else "accuracy": after} | ({"without": before} if before else {})
    for colour, (label, found) in zip(("C0", "C1"), shown.items(), strict=False):
        here, share = found.faces.numpy() > 0, found.faces.numpy() / max(1, int(found.faces.sum()))
        confidence, right = 100 * found.confidence.numpy()[here], 100 * found.accuracy.numpy()[here]
        spans = [wilson(share, count) for share, count in zip(found.accuracy[here], found.faces[here], strict=True)]
        reach = 100 * np.abs(np.array(spans)[:, 1:] - np.array(spans)[:, :1]).T
        upper.errorbar(confidence, right, reach, marker="o", color=colour, elinewidth=0.8, label=label)
        lower.stairs(100 * share, edges, fill=found is after, color=colour, alpha=0.8)
    upper.plot([0, 100], [0, 100], "--", color="grey", linewidth=0.8, label="as sure as right")
    upper.set(ylabel="accuracy %", xlim=(0, 100), ylim=(0, 100))
    upper.tick_params(labelbottom=False)
    upper.legend(fontsize=8, loc="lower right")
    lower.set(xlabel=f"confidence %, in {bins} ranges", ylabel="faces %")
    coverage = 100 * np.arange(1, len(accuracy) + 1) / max(1, len(accuracy))
    surest.plot(coverage, 100 * accuracy)
    surest.set(xlabel="the surest % of the faces", ylabel="accuracy %", xlim=(0, 100), ylim=(None, 100.5))
    for axes in (upper, lower, surest):
        axes.grid(alpha=0.3)
    return figure


def robustness(accuracy: Mapping[str, Sequence[Sequence[float]]], uncorrupted: float, title: str) -> Figure:
    """Accuracy with its interval by severity, a line for each corruption; [figure, lower, upper] by severity."""
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for name, figures in accuracy.items():
        middle, lower, upper = 100 * np.array(figures).T
        severities = range(len(figures) + 1)
        style = "--" if name.endswith("covered") else "-"
        (line,) = axes.plot(severities, [100 * uncorrupted, *middle], style, marker=".", label=name.replace("_", " "))
        axes.fill_between(severities[1:], lower, upper, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.axhline(100 * uncorrupted, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="severity (0: the faces as they are)", ylabel="accuracy %, 95 % interval")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize=8)
    _entitle(figure, title)
    return figure


def faces(
    images: NDArray[np.uint8], captions: Sequence[str], right: Sequence[bool], columns: int = 8, title: str = ""
) -> Figure:
    """Faces (N, H, W) or (N, H, W, 3) with a caption each, green where the prediction is right and red where not."""
    rows = max(1, -(-len(images) // columns))
    width, sheet = FACE_INCHES * columns, FACE_INCHES * FACE_HIGH * rows
    figure = _framed(title, width, sheet + _room(title, width), left=0, right=0, bottom=0)
    axes = figure.subplots()  # one for all: an axes for each face takes a second more
    axes.axis("off")
    for place, (image, caption, good) in enumerate(zip(images, captions, right, strict=True)):
        down, across = divmod(place, columns)
        bottom, side = (down + 1) * FACE_HIGH, 1 - FACE_GAP
        left = across + FACE_GAP / 2
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(left, left + side, bottom, bottom - side))
        colour = "darkgreen" if good else "firebrick"
        axes.text(across + 0.5, bottom - side - 0.02, caption, ha="center", va="bottom", fontsize=8, color=colour)
    axes.set(xlim=(0, columns), ylim=(rows * FACE_HIGH, 0))
    return figure


def _framed(
    title: str, width: float, height: float, left: float = 0.7, right: float = 0.25, bottom: float = 0.6
) -> Figure:
    """A figure whose axes leave so many inches free; a layout that finds them out by itself draws everything twice."""
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - _room(title, width) / height)
    _entitle(figure, title)
    return figure


def _room(title: str, width: float) -> float:
    """Inches that a title takes above all."""
    return 0.2 * len(_folded(title, width)) + 0.15


def _folded(title: str, inches: float) -> list[str]:
    """Lines no longer than so much, of what `_entitle` writes."""
    return [part for line in title.splitlines() for part in wrap(line, int(11 * inches))]


def _entitle(figure: Figure, title: str) -> None:
    """Above all, in lines no longer than the figure is wide."""
    figure.suptitle("\n".join(_folded(title, figure.get_figwidth())), fontsize=10)
