"""Runs by what validation says of them, each figure with its interval."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from emotion.io.atomic import write_text
from emotion.metrics.statistics import wilson
from emotion.reporting.tables import markdown
from emotion.reporting.text import duration, spread

TITLE = "ranked by validation, which chooses (the best of many flatters); accuracy on test only tells; 95 % intervals"
Row = dict[str, str]


def ranked(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Row]:
    """A row a run, the best first: by the score that chose its epoch, whichever way that is better.

    Runs that were chosen by different metrics stand apart, each metric's below the former's.
    """
    order = sorted(range(len(records)), key=lambda index: _key(records[index]))
    return [{"": str(place + 1)} | _row(records[index], names[index]) for place, index in enumerate(order)]


def validated(record: Mapping[str, Any]) -> list[float]:
    """The score that chose the epoch, and of an accuracy its interval: [share, lower, upper] or [figure]."""
    best = record["best"]
    if best["metric"] != "val/acc":
        return [best["score"]]
    return wilson(torch.tensor(best["score"]), torch.tensor(record["split"]["val"]))


def write(rows: Sequence[Row], folder: Path) -> list[Path]:
    """ranking.md and ranking.csv."""
    table = csv.DictWriter(text := io.StringIO(), list(dict.fromkeys(k for row in rows for k in row)), restval="")
    table.writeheader()
    table.writerows(rows)
    write_text(folder / "ranking.csv", text.getvalue())
    write_text(folder / "ranking.md", f"# {TITLE}\n\n{markdown(rows, left=2)}")
    return [folder / "ranking.md", folder / "ranking.csv"]


def _key(record: Mapping[str, Any]) -> tuple[str, float]:
    best = record["best"]
    score = -best["score"] if best["mode"] == "max" else best["score"]
    return best["metric"], score if math.isfinite(score) else math.inf


def _row(record: Mapping[str, Any], name: str) -> Row:
    best, test = record["best"], record["scores"].get("test", {})
    found = validated(record)
    drawn = " (SYNTHETIC)" if record["data"]["source"].startswith("synthetic") else ""
    row = {"run": f"{name}{drawn}", best["metric"]: spread(found) if len(found) == 3 else f"{found[0]:.4f}"}
    for tta, scores in test.items():
        row["test %" if tta == "none" else f"test %, {tta}"] = spread(scores["all"]["accuracy"])
    return row | {"epochs": f"{record['epochs']}", "time": duration(record["fit_seconds"])}
