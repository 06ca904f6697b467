"""Pictures of a run: confusion matrix, history, faces with their predictions. Every function returns a Figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from emotion.files import write_atomically


def save(figure: Figure, path: Path) -> None:
    """As the file type that the name says, whole or not at all."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=150))


def confusion_matrix(confusion: NDArray[np.int64], classes: Sequence[str], title: str) -> Figure:
    """Rows true, columns predicted; shade and upper figure are shares of the row, the lower figure the faces."""
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = 1.6 + 0.8 * len(classes)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
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
    axes.set_title(title, fontsize=10)
    return figure


def history(rows: Mapping[int, Mapping[str, float]], best_epoch: int | None = None) -> Figure:
    """Loss, accuracy with macro F1, and learning rates over the epochs of a metrics.csv, counted from 1."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    losses, scores, rates = figure.subplots(1, 3)
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
    figure.suptitle(title, fontsize=10)
    return figure


def faces(images: NDArray[np.uint8], captions: Sequence[str], right: Sequence[bool], columns: int = 8) -> Figure:
    """Faces (N, H, W) or (N, H, W, 3) with a caption each, green where the prediction is right and red where not."""
    rows = max(1, -(-len(images) // columns))
    figure = Figure(figsize=(1.5 * columns, 1.9 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, image, caption, good in zip(figure.axes, images, captions, right, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(caption, fontsize=8, color="darkgreen" if good else "firebrick")
    return figure
