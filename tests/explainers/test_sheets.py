"""Sheets of explanations say what their colors mean."""

from collections.abc import Callable
from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from emotion.explainers.explanation import Explanation
from emotion.explainers.image_set import ImageSet, image_set_of_pixels
from emotion.explainers.sheets import plot_class_means, plot_sheet

CLASSES = ("happy", "fear", "sad")


def images() -> ImageSet:
    return image_set_of_pixels(np.zeros((2, 8, 8), np.uint8), ["a", "b"], CLASSES, "two files", [{}, {}])


def explanation(*, signed: bool) -> Explanation:
    maps, targets = torch.rand(2, 8, 8), torch.tensor([0, 2])
    return Explanation("net", "method", signed, maps, targets, torch.full((2, 3), 0.5))


def legend(figure: Figure) -> list[str]:
    (found,) = figure.legends
    return [text.get_text() for text in found.get_texts()]


def test_the_legend_names_the_colors_that_occur() -> None:
    heat = ["bright: counts most", "dark: counts less"]
    sign = ["red: for the class", "blue: against the class"]
    for plot in (lambda shown: plot_sheet(images(), shown, 2), lambda shown: plot_class_means(images(), shown)):
        assert legend(plot([explanation(signed=False)])) == heat
        assert legend(plot([explanation(signed=True)])) == sign
        assert legend(plot([explanation(signed=False), explanation(signed=True)])) == heat + sign


def test_averages_are_those_of_the_explained_classes() -> None:
    figure = plot_class_means(images(), [explanation(signed=False)])
    assert [axes.get_title() for axes in figure.axes] == ["happy, n=1", "sad, n=1"]


@pytest.mark.parametrize("plot", [plot_class_means, partial(plot_sheet, num_shown=2)], ids=["averages", "sheet"])
def test_long_names_do_not_overlap(plot: Callable[..., Figure]) -> None:
    long = "a_very_long_photograph_name_2026_01_31_holiday.png, face 2"
    named = images()._replace(names=[long, long])
    shown = [explanation(signed=False)._replace(network=f"folder/of/runs/{name}/{long}") for name in ("a", "b")]
    figure = plot(named, explanations=shown)
    for _ in range(2):  # the first one places the axes
        figure.draw_without_rendering()
    boxes = [text.get_window_extent() for axes in figure.axes for text in (axes.title, axes.yaxis.label)]
    filled = [box for box in boxes if box.width]
    assert len(filled) >= 6
    assert [(one, other) for one, other in combinations(filled, 2) if one.overlaps(other)] == []
