"""Pictures of explanations: a sheet of faces, the classes' average maps, and the curves that test them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from emotion.explainers.explanation import Explained, Subjects

ACROSS = 10  # pictures side by side, at most
FOR, FOR_AND_AGAINST = "inferno", "RdBu_r"


def sheet(subjects: Subjects, explained: Sequence[Explained], shown: int) -> Figure:
    """The first faces, each beside its maps laid over it, with what each network said and the true class."""
    shown = min(shown, len(subjects.faces))
    block = 1 + len(explained)
    blocks = max(1, min(shown, ACROSS // block))
    rows = -(-shown // blocks)
    figure = Figure(figsize=(1.45 * block * blocks, 1.85 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, block * blocks, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    several = len({one.network for one in explained}) > 1
    for number in range(shown):
        row, column = number // blocks, block * (number % blocks)
        face = grey(subjects, number)
        first, *others = grid[row, column : column + block]
        _face(first, face)
        true = subjects.names[number] if subjects.labels is None else subjects.classes[subjects.labels[number]]
        first.set_title(f"{true}\n", fontsize=8)
        for axes, one in zip(others, explained, strict=True):
            _face(axes, face)
            lay_over(axes, one.maps[number].numpy(), one.signed)
            _caption(axes, subjects, one, number, several)
    return figure


def _caption(axes: Axes, subjects: Subjects, one: Explained, number: int, several: bool) -> None:
    """What the map explains, with its probability; green where that is the true class, red where not."""
    target = int(one.targets[number])
    said = f"{subjects.classes[target]} {100 * one.probabilities[number, target]:.0f} %"
    method = f"{one.network}\n{one.method}" if several else one.method
    method += " (blank)" if not one.maps[number].any() else ""
    colour = "black"
    if subjects.labels is not None:
        colour = "darkgreen" if target == int(subjects.labels[number]) else "firebrick"
    axes.set_title(f"{method}\n{said}", fontsize=8, color=colour)


def averages(subjects: Subjects, explained: Sequence[Explained]) -> Figure:
    """For each network and method, the mean map of the faces explained as each class over their mean face."""
    classes = subjects.classes
    figure = Figure(figsize=(1.45 * len(classes) + 0.9, 1.75 * len(explained) + 0.4), layout="constrained")
    grid = figure.subplots(len(explained), len(classes), squeeze=False)
    several = len({one.network for one in explained}) > 1
    for line, one in zip(grid, explained, strict=True):
        for index, (axes, name) in enumerate(zip(line, classes, strict=True)):
            axes.set(xticks=[], yticks=[])
            own = (one.targets == index).nonzero()[:, 0]
            axes.set_title(f"{name}, n={len(own)}", fontsize=8)
            if len(own):
                _face(axes, np.mean([grey(subjects, number) for number in own.tolist()], 0))
                size = one.maps[own].abs().amax((1, 2), keepdim=True).clamp(min=1e-12)
                lay_over(axes, (one.maps[own] / size).mean(0).numpy(), one.signed)
        line[0].set_ylabel(f"{one.network}\n{one.method}" if several else one.method, fontsize=8)
    return figure


def curves(explained: Sequence[Explained]) -> Figure:
    """Deletion and insertion: the class's probability while pixels go or come, by method, chance and the middle."""
    networks = list(dict.fromkeys(one.network for one in explained))
    figure = Figure(figsize=(9, 3.4 * len(networks)), layout="constrained")
    for line, network in zip(figure.subplots(len(networks), 2, squeeze=False, sharey="row"), networks, strict=True):
        own = [one for one in explained if one.network == network]
        for axes, name in zip(line, ("deletion", "insertion"), strict=True):
            for one in own:
                assert one.truth is not None
                mean = one.truth.curves[name].numpy()
                axes.plot(np.linspace(0, 100, len(mean)), 100 * mean, marker=".", label=one.method)
            assert own[0].truth is not None
            for whose, style in (("middle", "--"), ("chance", ":")):
                mean = own[0].unknowing[whose].curves[name].numpy()
                axes.plot(np.linspace(0, 100, len(mean)), 100 * mean, style, color="grey", label=whose)
            gone = "taken away" if name == "deletion" else "put back"
            axes.set(xlabel=f"% of pixels {gone}, the most important first", ylabel="probability %")
            axes.set_title(f"{network}: {name}, n={len(own[0].truth.measures[name])}", fontsize=10)
            axes.grid(alpha=0.3)
        line[0].legend(fontsize=7)
    return figure


def grey(subjects: Subjects, number: int) -> NDArray[np.float32]:
    """A face (H, W) from 0 to 1, its colours averaged: they would mix with the map's."""
    face: NDArray[np.float32] = subjects.faces[number].mean(0).numpy()
    return face


def lay_over(axes: Axes, values: NDArray[np.float32], signed: bool) -> None:
    """A map over what is drawn, nothing where it is 0; smoothed by a pixel of 48, and its strongest hundredth alike.

    Both are for the eye, which sees nothing in single pixels; maps.npz holds what was found.
    """
    smooth = gaussian_filter(values, values.shape[-1] / 48)
    shade = np.clip(smooth / (np.quantile(np.abs(smooth), 0.99) or 1), -1, 1)
    low = -1 if signed else 0
    axes.imshow(shade, cmap=FOR_AND_AGAINST if signed else FOR, vmin=low, vmax=1, alpha=0.75 * np.abs(shade) ** 0.7)


def _face(axes: Axes, face: NDArray[np.float32]) -> None:
    axes.imshow(face, cmap="gray", vmin=0, vmax=1)
