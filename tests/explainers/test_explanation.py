"""The intervals of faithfulness scores."""

import math
import sys

import pytest
import torch
from torch import Tensor

from emotion.explainers.explanation import Explanation
from emotion.explainers.faithfulness import FaithfulnessScores
from emotion.reporting.tables import print_table

RANGES = {
    "deletion": (0, 1),
    "road": (-0.5, 0.5),
    "sensitivity": (0, math.inf),
    "shuffled all": (-1, 1),
    "eyes": (0, 1),
}


def explanation(values: dict[str, Tensor]) -> Explanation:
    baseline = FaithfulnessScores({name: values[name] for name in ("deletion", "insertion", "road")}, {})
    none = torch.zeros(2, 4, 4)
    scores = FaithfulnessScores(values, {})
    return Explanation("net", "method", False, none, none, none, 0.0, scores, {"center": baseline})


@pytest.mark.parametrize("name", RANGES)
def test_an_interval_has_only_values_that_the_measure_can_have(name: str) -> None:
    """Student's interval of two values is 12.7 times as wide as their distance."""
    least, most = RANGES[name]
    values = dict.fromkeys(("deletion", "insertion", "road", name), torch.tensor([0.1, 0.2]))
    mean, lower, upper = explanation(values).summary()["measures"][name]
    expected = (max(least, 0.15 - 0.635310), min(most, 0.15 + 0.635310))
    assert (mean, lower, upper) == pytest.approx((0.15, *expected), abs=1e-5)
    _, rows = explanation(values | {name: torch.tensor([0.0, 1.0])}).table()
    assert rows[list(values).index(name)]["method"] == {
        "sensitivity": "0.500 [0.000, 6.853]",
        "shuffled all": "0.500 [-1.000, 1.000]",
    }.get(name, f"0.500 [{least:.3f}, {most:.3f}]")


def test_the_table_fits_a_terminal_of_100_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    names = ("deletion", "insertion", "road", "sensitivity", "shuffled head", "shuffled later half", "shuffled all")
    print_table(*explanation(dict.fromkeys(names, torch.tensor([-0.5, 0.4]))).table())
    assert capsys.readouterr().out.count("\nmeasure ") == 1
