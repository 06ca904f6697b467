"""Scores as tables in the terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from emotion import report
from emotion.cli import console

ROWS = {"all": "all", "clean": "not in training"}
SLICES: dict[str, tuple[str, Callable[[float], str]]] = {
    "brightness": ("mean grey level", "{:.0f}".format),
    "agreement": ("share of the largest vote", "{:.0%}".format),
}


def print_scores(title: str, by_views: Mapping[str, report.Scores]) -> None:
    """A line for each kind of view and rows, again against votes where there are some, then the last one's classes."""
    out = console()
    overall = Table(title=title, title_justify="left")
    for column in ("views", "rows", "faces", "accuracy %", "macro F1 %", "ECE %", "NLL"):
        overall.add_column(column, justify="left" if column in ("views", "rows") else "right")
    for views, scores in by_views.items():
        for rows, name in ROWS.items():
            found = scores[rows]
            figures = (
                report.spread(found["accuracy"]),
                report.spread(found["macro_f1"]),
                report.share(found["ece"]),
                report.loss(found["nll"]),
            )
            overall.add_row(views, name, f"{found['n']:,}", *figures)
    out.print(overall)
    _print_doubts(by_views)
    voted = {views: scores for views, scores in by_views.items() if "votes" in scores["all"]}
    against = [
        {"views": views, "rows": name}
        | {key.replace("_", "-"): report.loss(scores[rows]["votes"][key]) for key in ("cross_entropy", "entropy")}
        for views, scores in voted.items()
        for rows, name in ROWS.items()
    ]
    if against:
        report.print_table("against the taggers' votes, whose own entropy is the least possible", against, left=2)
    views, scores = list(by_views.items())[-1]
    classes = Table(title=f"by class, all rows, views={views}", title_justify="left")
    for column in ("class", "faces", "precision %", "recall %", "F1 %"):
        classes.add_column(column, justify="left" if column == "class" else "right")
    for name, found in scores["all"]["classes"].items():
        classes.add_row(name, f"{found['n']:,}", *(report.spread(found[key]) for key in ("precision", "recall", "f1")))
    out.print(classes)


def _print_doubts(by_views: Mapping[str, report.Scores]) -> None:
    """How right the surest answers are, and what there would be without the temperature, where there is one."""
    lines = []
    for views, scores in by_views.items():
        for rows, name in ROWS.items():
            found, line = scores[rows], {"views": views, "rows": name}
            for coverage, accuracy in found["selective"]["accuracy"].items():
                line[f"{float(coverage):.0%}"] = report.spread(accuracy)
            line["AURC %"] = report.share(found["selective"]["aurc"])
            lines.append(line)
    report.print_table("accuracy % of the surest 50, 80 and 90 % of the faces", lines, left=2)
    before = [
        {"views": views, "rows": name, "ECE %": report.share(found["ece"])}
        | {key: report.loss(found[key.lower()]) for key in ("NLL", "Brier")}
        for views, scores in by_views.items()
        for rows, name in ROWS.items()
        if (found := scores[rows].get("uncalibrated"))
    ]
    if before:
        report.print_table("without the temperature", before, left=2)


def print_slices(slices: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """A table of each kind of slices, a line for each quarter of the faces."""
    for name, quarters in slices.items():
        shown, unit = SLICES[name]
        lines = [
            {shown: " to ".join(dict.fromkeys((unit(one["from"]), unit(one["to"])))), "faces": f"{one['n']:,}"}
            | {"accuracy %": report.spread(one["accuracy"]), "macro F1 %": report.spread(one["macro_f1"])}
            for one in quarters
        ]
        report.print_table(f"all rows in quarters by {shown}", lines)


def print_robustness(found: Mapping[str, Any]) -> None:
    """Accuracy by corruption and severity, then their mean."""
    lines = [
        {"corruption": name.replace("_", " ")}
        | {f"severity {i}": f"{100 * figure[0]:.1f}" for i, figure in enumerate(figures, start=1)}
        | {"mean": f"{np.mean([100 * figure[0] for figure in figures]):.1f}"}
        for name, figures in found["accuracy"].items()
    ]
    report.print_table("accuracy % on corrupted faces", lines)
    print(f"mean over corruptions and severities: {report.of_uncorrupted(found)}")
