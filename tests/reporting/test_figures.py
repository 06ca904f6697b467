"""Figures of few epochs, classes and faces."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from emotion.reporting.figures import confusion_matrix, faces, history

ROW = {"train/loss": 1.5, "val/loss": 1.2, "train/acc": 0.4, "val/acc": 0.5, "train/macro_f1": 0.3, "lr": 1e-3}


@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_epochs_are_whole_numbers_and_each_is_marked(epochs: int) -> None:
    figure = history(dict.fromkeys(range(1, epochs + 1), ROW), best_epoch=1)
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks
        assert all(tick == round(tick) for tick in ticks)
        lines = [line for line in axes.get_lines() if line.get_label() != "best"]
        assert all(line.get_marker() != "None" for line in lines)


def test_learning_rates_are_labeled_without_tex() -> None:
    figure = history({epoch: ROW | {"lr": 1e-3 * 0.9**epoch} for epoch in range(40)}, best_epoch=1)
    figure.savefig(io.BytesIO())
    labels = [label.get_text() for label in figure.axes[-1].get_yticklabels(which="both")]
    assert any(labels)
    assert not any("$" in label for label in labels)


def test_the_labels_of_two_classes_are_inside_the_figure() -> None:
    figure = confusion_matrix(np.array([[3, 1], [0, 2]]), ["happy", "sad"], "two classes")
    figure.savefig(io.BytesIO())
    assert all(0 <= text.x0 and text.x1 <= figure.bbox.width for text in label_boxes(figure))


def label_boxes(figure: Figure) -> list:
    return [axis.label.get_window_extent() for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]


def test_a_sheet_of_one_face_is_no_wider_than_its_title_needs() -> None:
    images = np.zeros((1, 8, 8), np.uint8)
    widths = [faces(np.repeat(images, n, 0), ["happy"] * n, [True] * n).get_figwidth() for n in (1, 6, 20)]
    assert widths == [6, 9, 12]
