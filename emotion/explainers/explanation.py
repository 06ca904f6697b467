"""The maps of one network by one explainer, and their faithfulness."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from emotion.explainers.faithfulness import FaithfulnessScores
from emotion.metrics.statistics import sample_mean

MEASURES: Mapping[str, str] = {
    "deletion": "deletion, lower is better",
    "insertion": "insertion, higher is better",
    "road": "ROAD, higher is better",
    "sensitivity": "sensitivity, lower is better",
    "shuffled head": "correlation, head shuffled",
    "shuffled later half": "correlation, half shuffled",
    "shuffled all": "correlation, all shuffled",
}
"""Labels of the measures; the others are shares of regions."""

MIN_FACES = 20
"""Measured faces below which intervals are too wide to tell explainers apart."""

RANGES: Mapping[str, tuple[float, float]] = {
    "road": (-0.5, 0.5),
    "sensitivity": (0.0, math.inf),
    "shuffled head": (-1.0, 1.0),
    "shuffled later half": (-1.0, 1.0),
    "shuffled all": (-1.0, 1.0),
    "gain": (-1.0, 1.0),
}
"""Values that measures can have; the others are from 0 to 1."""

RANKED = ("deletion", "insertion", "road")
"""Measures that are compared per face with the center baseline."""


class Explanation(NamedTuple):
    """The maps of N faces by one explainer."""

    network: str
    method: str  # name of the explainer
    signed: bool  # whether negative values count against the class
    maps: Tensor  # (N, H, W)
    targets: Tensor  # (N,) explained classes
    probabilities: Tensor  # (N, K) of the network
    seconds: float = 0.0  # time to compute the maps
    scores: FaithfulnessScores | None = None  # None if not measured
    baselines: Mapping[str, FaithfulnessScores] = {}  # of maps that do not depend on the face, by name

    @property
    def num_blank(self) -> int:
        """Number of maps that are 0 everywhere."""
        return int((self.maps.abs().amax((1, 2)) == 0).sum())

    def summary(self) -> dict[str, Any]:
        """Return the entry in explain.json; every measure is [mean, lower, upper] with a 95 % t interval over faces.

        Blank maps have no sensitivity, region shares or correlation; shuffling the weights may cause them.
        """
        entry = {
            "network": self.network,
            "method": self.method,
            "seconds": round(self.seconds, 3),
            "blank": self.num_blank,
        }
        if self.scores is None:
            return entry
        return entry | {
            "measures": _means(self.scores),
            "n": {name: int((~values.isnan()).sum()) for name, values in self.scores.measures.items()},
            "baselines": {name: _means(scores) for name, scores in self.baselines.items()},
            "gain_over_center": {name: self._gain_over_center(name) for name in RANKED},
        }

    def table(self) -> tuple[str, list[dict[str, str]]]:
        """Return the title and the rows of the table of measures."""
        assert self.scores is not None
        rows = []
        for name, values in self.scores.measures.items():
            row = {"measure": MEASURES.get(name, f"share {name}"), self.method: _format(_mean(name, values))}
            for baseline, scores in self.baselines.items():
                row[baseline] = f"{_mean(name, scores.measures[name])[0]:.3f}" if name in scores.measures else "-"
            row["gain over center"] = _format(self._gain_over_center(name)) if name in RANKED else "-"
            rows.append(row | {"n": str(int((~values.isnan()).sum()))})
        blank = f" ({self.num_blank} of {len(self.maps)} maps are blank)" if self.num_blank else ""
        return f"{self.network}: faithfulness of {self.method}{blank}", rows

    def _gain_over_center(self, name: str) -> list[float | None]:
        """Return by how much the maps are better than the blob in the center, as `_mean` does."""
        assert self.scores is not None
        gain = self.scores.measures[name] - self.baselines["center"].measures[name]
        return _mean("gain", -gain if name == "deletion" else gain)


def _means(scores: FaithfulnessScores) -> dict[str, list[float | None]]:
    return {name: _mean(name, values) for name, values in scores.measures.items()}


def _mean(name: str, values: Tensor) -> list[float | None]:
    """Return the mean of the known values of a measure and its interval, which needs two values."""
    known = values[~values.isnan()].tolist()
    if len(known) < 2:
        return [known[0] if known else None, None, None]
    return [*sample_mean(known).interval(*RANGES.get(name, (0.0, 1.0)))]


def _format(mean: Sequence[float | None]) -> str:
    known = [f"{value:z.3f}" for value in mean if value is not None]
    return "{} [{}, {}]".format(*known) if len(known) == 3 else "".join(known) or "-"
