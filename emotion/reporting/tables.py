"""Tables for the terminal, Markdown and CSV; scores as terminal tables."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from emotion.reporting.text import console, format_interval, format_loss, format_percent, format_robustness

Row = Mapping[str, str]
Scores = Mapping[str, Any]
ROWS = {"all": "all", "deduplicated": "not in training"}
"""Subsets of the scored rows, and their names in tables."""
SLICES: dict[str, tuple[str, Callable[[float], str]]] = {
    "brightness": ("mean grey level", "{:.0f}".format),
    "agreement": ("share of the largest vote", "{:.0%}".format),
}
"""Properties that faces are sliced by: name in tables, format of a value."""


def print_table(title: str, rows: Sequence[Row], left: int = 1) -> None:
    """Print rows of named cells; the first `left` columns are left-aligned, the others right-aligned."""
    columns, lines = _cells(rows)
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    console().print(table)


def markdown_table(rows: Sequence[Row], left: int = 1) -> str:
    """Return rows of named cells as a Markdown table, aligned as in `print_table`."""
    columns, lines = _cells(rows)
    align = ["---" if index < left else "---:" for index in range(len(columns))]
    return "".join(f"| {' | '.join(line)} |\n" for line in [columns, align, *lines])


def csv_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of named values as CSV; a missing value is empty."""
    table = csv.DictWriter(text := io.StringIO(), _columns(rows), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def print_scores(title: str, scores_by_tta: Mapping[str, Scores]) -> None:
    """Print the scores of each TTA and subset of rows, then the scores by class of the last TTA."""
    subsets = [
        ({"tta": tta, "rows": name}, scores[rows])
        for tta, scores in scores_by_tta.items()
        for rows, name in ROWS.items()
    ]
    overall = [
        head
        | {
            "faces": f"{scores['n']:,}",
            "accuracy %": format_interval(scores["accuracy"]),
            "macro F1 %": format_interval(scores["macro_f1"]),
            "ECE %": format_percent(scores["ece"]),
            "NLL": format_loss(scores["nll"]),
        }
        for head, scores in subsets
    ]
    selective = [
        head
        | {f"{float(key):.0%}": format_interval(value) for key, value in scores["selective"]["accuracy"].items()}
        | {"AURC %": format_percent(scores["selective"]["aurc"])}
        for head, scores in subsets
    ]
    uncalibrated = [
        head | {"ECE %": format_percent(u["ece"]), "NLL": format_loss(u["nll"]), "Brier": format_loss(u["brier"])}
        for head, scores in subsets
        if (u := scores.get("uncalibrated"))
    ]
    votes = [
        head | {"cross-entropy": format_loss(v["cross_entropy"]), "entropy": format_loss(v["entropy"])}
        for head, scores in subsets
        if (v := scores.get("votes"))
    ]
    tta, last = list(scores_by_tta.items())[-1]
    by_class = [
        {
            "class": name,
            "faces": f"{scores['n']:,}",
            "precision %": format_interval(scores["precision"]),
            "recall %": format_interval(scores["recall"]),
            "F1 %": format_interval(scores["f1"]),
        }
        for name, scores in last["all"]["classes"].items()
    ]
    print_table(title, overall, left=2)
    print_table("accuracy % of the most confident 50, 80 and 90 % of the faces", selective, left=2)
    if uncalibrated:
        print_table("without the temperature", uncalibrated, left=2)
    if votes:
        print_table("cross-entropy to the annotators' votes, and their entropy, its minimum", votes, left=2)
    print_table(f"by class, all rows, tta={tta}", by_class)


def print_slices(slices: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Print a table of scores by quartile for each property."""
    for name, quartiles in slices.items():
        title, unit = SLICES[name]
        rows = [
            {
                title: " to ".join(dict.fromkeys((unit(quartile["from"]), unit(quartile["to"])))),
                "faces": f"{quartile['n']:,}",
                "accuracy %": format_interval(quartile["accuracy"]),
                "macro F1 %": format_interval(quartile["macro_f1"]),
            }
            for quartile in quartiles
        ]
        print_table(f"all rows, quartiles by {title}", rows)


def print_robustness(robustness: Mapping[str, Any]) -> None:
    """Print accuracy by corruption and severity, and the mean."""
    rows = [
        {"corruption": name.replace("_", " ")}
        | {f"severity {severity}": format_percent(value) for severity, (value, _, _) in enumerate(intervals, start=1)}
        | {"mean": format_percent(float(np.mean([value for value, _, _ in intervals])))}
        for name, intervals in robustness["accuracy"].items()
    ]
    print_table("accuracy % on corrupted faces", rows)
    print(f"mean over corruptions and severities: {format_robustness(robustness)}")


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row))


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    columns = _columns(rows)
    return columns, [[row.get(column, "") for column in columns] for row in rows]
