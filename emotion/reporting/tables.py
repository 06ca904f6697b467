"""Scores as tables in the terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from emotion.reporting.text import console, loss, of_uncorrupted, share, spread

Scores = Mapping[str, Any]
ROWS = {"all": "all", "clean": "not in training"}
SLICES: dict[str, tuple[str, Callable[[float], str]]] = {
    "brightness": ("mean grey level", "{:.0f}".format),
    "agreement": ("share of the largest vote", "{:.0%}".format),
}


def print_scores(title: str, by_views: Mapping[str, Scores]) -> None:
    """A line for each kind of view and rows, again against votes where there are some, then the last one's classes."""
    out = console()
    overall = Table(title=title, title_justify="left")
    for column in ("tta", "rows", "faces", "accuracy %", "macro F1 %", "ECE %", "NLL"):
        overall.add_column(column, justify="left" if column in ("tta", "rows") else "right")
    for tta, scores in by_views.items():
        for rows, name in ROWS.items():
            found = scores[rows]
            figures = (
                spread(found["accuracy"]),
                spread(found["macro_f1"]),
                share(found["ece"]),
                loss(found["nll"]),
            )
            overall.add_row(tta, name, f"{found['n']:,}", *figures)
    out.print(overall)
    _print_doubts(by_views)
    voted = {tta: scores for tta, scores in by_views.items() if "votes" in scores["all"]}
    against = [
        {"tta": tta, "rows": name}
        | {key.replace("_", "-"): loss(scores[rows]["votes"][key]) for key in ("cross_entropy", "entropy")}
        for tta, scores in voted.items()
        for rows, name in ROWS.items()
    ]
    if against:
        print_table("against the taggers' votes, whose own entropy is the least possible", against, left=2)
    tta, scores = list(by_views.items())[-1]
    classes = Table(title=f"by class, all rows, tta={tta}", title_justify="left")
    for column in ("class", "faces", "precision %", "recall %", "F1 %"):
        classes.add_column(column, justify="left" if column == "class" else "right")
    for name, found in scores["all"]["classes"].items():
        classes.add_row(name, f"{found['n']:,}", *(spread(found[key]) for key in ("precision", "recall", "f1")))
    out.print(classes)


def _print_doubts(by_views: Mapping[str, Scores]) -> None:
    """How right the surest answers are, and what there would be without the temperature, where there is one."""
    lines = []
    for tta, scores in by_views.items():
        for rows, name in ROWS.items():
            found, line = scores[rows], {"tta": tta, "rows": name}
            for coverage, accuracy in found["selective"]["accuracy"].items():
                line[f"{float(coverage):.0%}"] = spread(accuracy)
            line["AURC %"] = share(found["selective"]["aurc"])
            lines.append(line)
    print_table("accuracy % of the surest 50, 80 and 90 % of the faces", lines, left=2)
    before = [
        {"tta": tta, "rows": name, "ECE %": share(found["ece"])}
        | {key: loss(found[key.lower()]) for key in ("NLL", "Brier")}
        for tta, scores in by_views.items()
        for rows, name in ROWS.items()
        if (found := scores[rows].get("uncalibrated"))
    ]
    if before:
        print_table("without the temperature", before, left=2)


def print_slices(slices: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """A table of each kind of slices, a line for each quarter of the faces."""
    for name, quarters in slices.items():
        shown, unit = SLICES[name]
        lines = [
            {shown: " to ".join(dict.fromkeys((unit(one["from"]), unit(one["to"])))), "faces": f"{one['n']:,}"}
            | {"accuracy %": spread(one["accuracy"]), "macro F1 %": spread(one["macro_f1"])}
            for one in quarters
        ]
        print_table(f"all rows in quarters by {shown}", lines)


def print_robustness(found: Mapping[str, Any]) -> None:
    """Accuracy by corruption and severity, then their mean."""
    lines = [
        {"corruption": name.replace("_", " ")}
        | {f"severity {i}": f"{100 * figure[0]:.1f}" for i, figure in enumerate(figures, start=1)}
        | {"mean": f"{np.mean([100 * figure[0] for figure in figures]):.1f}"}
        for name, figures in found["accuracy"].items()
    ]
    print_table("accuracy % on corrupted faces", lines)
    print(f"mean over corruptions and severities: {of_uncorrupted(found)}")


def print_table(title: str, rows: Sequence[Mapping[str, str]], left: int = 1) -> None:
    """Rows of named cells, the first `left` columns to the left and the others to the right."""
    columns, lines = _cells(rows)
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    console().print(table)


def markdown(rows: Sequence[Mapping[str, str]], left: int = 1) -> str:
    """The same as a Markdown table."""
    columns, lines = _cells(rows)
    align = ["---" if index < left else "---:" for index in range(len(columns))]
    return "".join(f"| {' | '.join(line)} |\n" for line in [columns, align, *lines])


def _cells(rows: Sequence[Mapping[str, str]]) -> tuple[list[str], list[list[str]]]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return columns, [[row.get(column, "") for column in columns] for row in rows]
