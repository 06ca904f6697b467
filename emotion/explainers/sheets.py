"""Figures of explanations: faces with their maps, mean maps per class, and faithfulness curves."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.typing import ColorType
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from emotion.errors import shortened
from emotion.explainers.explainer import normalize_magnitude
from emotion.explainers.explanation import Explanation
from emotion.explainers.image_set import ImageSet
from emotion.io.figure import Figure

MAX_COLUMNS = 10
UNSIGNED_MAP, SIGNED_MAP = "inferno", "RdBu_r"
TRUE_COLOR, OTHER_COLOR = "darkgreen", "firebrick"
LEGEND_WIDTH, LEGEND_HEIGHT = 2.6, 0.2  # inches per entry
LABEL_LENGTH, TITLE_LENGTH = 20, 40  # characters above a face and above a plot of curves


def plot_sheet(images: ImageSet, explanations: Sequence[Explanation], num_shown: int) -> Figure:
    """Plot the first faces, each next to its maps; titles give the true class, and the explained one per map."""
    num_shown = min(num_shown, len(images.faces))
    width = 1 + len(explanations)  # of a face with its maps
    across = max(1, min(num_shown, MAX_COLUMNS // width))
    rows = -(-num_shown // across)
    figure = Figure(figsize=(1.45 * width * across, 1.85 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, width * across, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for index in range(num_shown):
        row, column = index // across, width * (index % across)
        face_axes, *map_axes = grid[row, column : column + width]
        _plot_face(face_axes, images.gray(index))
        true = images.names[index] if images.labels is None else images.classes[images.labels[index]]
        face_axes.set_title(f"{shortened(true, LABEL_LENGTH)}\n", fontsize=8)
        for axes, explanation in zip(map_axes, explanations, strict=True):
            _plot_face(axes, images.gray(index))
            plot_map(axes, explanation.maps[index].numpy(), explanation.signed)
            _set_title(axes, images, explanation, index, _label(explanation, explanations))
    titles = {TRUE_COLOR: "title: the true class", OTHER_COLOR: "title: another class"}
    _add_legend(figure, explanations, {} if images.labels is None else titles)
    return figure


def plot_class_means(images: ImageSet, explanations: Sequence[Explanation]) -> Figure:
    """Plot, for each network and explainer, the mean map over the mean face of each class that is explained."""
    explained = sorted({target for explanation in explanations for target in explanation.targets.tolist()})
    figure = Figure(figsize=(1.45 * len(explained) + 0.9, 1.75 * len(explanations) + 0.4), layout="constrained")
    grid = figure.subplots(len(explanations), len(explained), squeeze=False)
    for row, explanation in zip(grid, explanations, strict=True):
        for axes, index in zip(row, explained, strict=True):
            axes.set(xticks=[], yticks=[], box_aspect=1)
            members = (explanation.targets == index).nonzero()[:, 0]
            axes.set_title(f"{images.classes[index]}, n={len(members)}", fontsize=8)
            if len(members):
                _plot_face(axes, np.mean([images.gray(member) for member in members.tolist()], 0))
                mean = normalize_magnitude(explanation.maps[members]).mean(0)
                plot_map(axes, mean.numpy(), explanation.signed)
        row[0].set_ylabel(_label(explanation, explanations), fontsize=8)
    _add_legend(figure, explanations, {})
    return figure


def plot_curves(explanations: Sequence[Explanation]) -> Figure:
    """Plot deletion and insertion by network: probability over pixels replaced, per explainer and baseline."""
    networks = list(dict.fromkeys(explanation.network for explanation in explanations))
    figure = Figure(figsize=(9, 3.4 * len(networks)), layout="constrained")
    grid = figure.subplots(len(networks), 2, squeeze=False, sharey="row")
    for row, network in zip(grid, networks, strict=True):
        members = [explanation for explanation in explanations if explanation.network == network]
        for axes, name in zip(row, ("deletion", "insertion"), strict=True):
            for explanation in members:
                assert explanation.scores is not None
                curve = 100 * explanation.scores.curves[name].numpy()
                axes.plot(np.linspace(0, 100, len(curve)), curve, marker=".", label=explanation.method)
            for baseline, style in (("center", "--"), ("chance", ":")):
                scores = members[0].baselines[baseline]
                curve = 100 * scores.curves[name].numpy()
                axes.plot(np.linspace(0, 100, len(curve)), curve, style, color="gray", label=baseline)
            verb = "removed" if name == "deletion" else "restored"
            axes.set(xlabel=f"% of pixels {verb}, most important first", ylabel="probability %")
            axes.set_title(f"{shortened(network, TITLE_LENGTH)}: {name}, n={len(scores.measures[name])}", fontsize=10)
            axes.grid(alpha=0.3)
        row[0].legend(fontsize=7)
    return figure


def plot_map(axes: Axes, values: NDArray[np.float32], signed: bool) -> None:
    """Overlay a map (H, W) on the axes, transparent where it is 0.

    For legibility it is smoothed by one pixel of 48 and clipped at its 99th percentile; maps.npz has the exact values.
    """
    smooth = gaussian_filter(values, values.shape[-1] / 48)
    shade = np.clip(smooth / (np.quantile(np.abs(smooth), 0.99) or 1), -1, 1)
    cmap, low = (SIGNED_MAP, -1) if signed else (UNSIGNED_MAP, 0)
    axes.imshow(shade, cmap=cmap, vmin=low, vmax=1, alpha=0.75 * np.abs(shade) ** 0.7)


def _add_legend(figure: Figure, explanations: Sequence[Explanation], titles: Mapping[str, str]) -> None:
    """Add a legend below the figure: the colors of the maps, then those of `titles` (meaning by color)."""
    unsigned, signed = colormaps[UNSIGNED_MAP], colormaps[SIGNED_MAP]
    entries: list[tuple[ColorType, str]] = []
    if not all(explanation.signed for explanation in explanations):
        entries += [(unsigned(0.9), "bright: counts most"), (unsigned(0.4), "dark: counts less")]
    if any(explanation.signed for explanation in explanations):
        entries += [(signed(0.95), "red: for the class"), (signed(0.05), "blue: against the class")]
    entries += titles.items()
    width, height = figure.get_size_inches()
    columns = max(1, min(len(entries), int(width / LEGEND_WIDTH)))
    figure.set_size_inches(width, height + LEGEND_HEIGHT * -(-len(entries) // columns) + 0.1)
    handles = [Patch(color=color, label=label) for color, label in entries]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def _set_title(axes: Axes, images: ImageSet, explanation: Explanation, index: int, label: str) -> None:
    """Title a map with its class and probability, green if that is the true class and red if it is not."""
    target = int(explanation.targets[index])
    blank = "" if explanation.maps[index].any() else " (blank)"
    color = "black"
    if images.labels is not None:
        color = TRUE_COLOR if target == int(images.labels[index]) else OTHER_COLOR
    percent = 100 * explanation.probabilities[index, target]
    axes.set_title(f"{label}{blank}\n{images.classes[target]} {percent:.0f} %", fontsize=8, color=color)


def _label(explanation: Explanation, explanations: Sequence[Explanation]) -> str:
    several = len({other.network for other in explanations}) > 1
    network = shortened(explanation.network, LABEL_LENGTH)
    return f"{network}\n{explanation.method}" if several else explanation.method


def _plot_face(axes: Axes, face: NDArray[np.float32]) -> None:
    axes.imshow(face, cmap="gray", vmin=0, vmax=1)
