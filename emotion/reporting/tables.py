"""Tables for the terminal, Markdown and CSV; scores as terminal tables."""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from emotion.reporting.text import console, format_interval, format_loss, format_percent, format_robustness, wrapped

Row = dict[str, str]


class Table(NamedTuple):
    """A titled table; the first `left` columns, which name its rows, are left-aligned.

    In LaTeX, where a table stands alone, `caption` replaces the title, and `name` is its label.
    """

    title: str
    rows: Sequence[Row]
    name: str
    caption: str
    left: int = 1


LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {character: f"${character}$" for character in "<>|"}
    | {"±": r"$\pm$", "\N{MINUS SIGN}": "$-$"}
)
UNESCAPED_BAR = re.compile(r"(?<!\\)\|")
Scores = Mapping[str, Any]
ROWS = {"all": "all", "deduplicated": "not in training"}
"""Subsets of the scored rows, and their names in tables."""
SLICES: dict[str, tuple[str, Callable[[float], str]]] = {
    "brightness": ("mean gray level", "{:.0f}".format),
    "agreement": ("share of the largest vote", "{:.0%}".format),
}
"""Properties that faces are sliced by: name in tables, format of a value."""


def print_table(title: str, rows: Sequence[Row], left: int = 1) -> None:
    """Print rows of named cells; the first `left` columns are left-aligned, the others right-aligned.

    A table wider than the terminal is printed in parts that repeat the left columns. Names (in the first column, or in
    the second below a number) that leave no room for another column are printed above the table, which refers to them
    by number.
    """
    room = console().width + 2
    columns, lines = _cells(rows)
    widths = [max(map(len, cells)) + 2 for cells in zip(columns, *lines, strict=True)]
    print("\n".join(wrapped(line) for line in title.splitlines()))
    if sum(widths[:left]) + max(widths[left:], default=0) > room:
        if [line[0] for line in lines] == [str(number) for number in range(1, len(lines) + 1)]:
            del columns[0], widths[0]
            lines, left = [line[1:] for line in lines], left - 1
        for number, line in enumerate(lines, start=1):
            print(f"{number}: {line[0]}")
            line[0] = str(number)
        widths[0] = max(len(columns[0]), len(str(len(lines)))) + 2
    for part in _parts(widths, left, room):
        rule = ["-" * (width - 2) for width in widths]
        for line in [columns, rule, *lines]:
            cells = (f"{line[i]:{'<' if i < left else '>'}{widths[i] - 2}}" for i in part)
            print("  ".join(cells).rstrip())
        print(flush=True)


def _parts(widths: Sequence[int], left: int, room: int) -> list[list[int]]:
    """Return the columns of each part of a table: the first `left` ones and as many others as there is room for."""
    parts: list[list[int]] = []
    for index in range(left, len(widths)):
        if not parts or sum(widths[i] for i in (*parts[-1], index)) > room:
            parts.append(list(range(left)))
        parts[-1].append(index)
    return parts or [list(range(len(widths)))]


def markdown_table(rows: Sequence[Row], left: int = 1) -> str:
    """Return rows of named cells as a Markdown table, aligned as in `print_table`."""
    columns, lines = _cells(rows)
    align = ["---" if index < left else "---:" for index in range(len(columns))]
    escaped = [[UNESCAPED_BAR.sub(r"\\|", cell) for cell in line] for line in [columns, align, *lines]]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def latex_table(table: Table) -> str:
    """Return a LaTeX table for the package booktabs, labeled `tab:NAME`."""
    columns, lines = _cells(table.rows)
    align = "l" * table.left + "r" * (len(columns) - table.left)
    head, *body = (" & ".join(cell.translate(LATEX) for cell in line) + r" \\" for line in [columns, *lines])
    parts = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{table.caption.translate(LATEX)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{align}}}",
        r"\toprule",
    ]
    parts += [head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(parts) + "\n"


def csv_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of named values as CSV; a missing value is empty."""
    table = csv.DictWriter(text := io.StringIO(), _columns(rows), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def print_scores(title: str, scores_by_tta: Mapping[str, Scores], *, verbose: bool) -> None:
    """Print the scores of each TTA and subset of rows.

    With `verbose` also print calibration, selective prediction, agreement with votes, and, of the last TTA, scores by
    class and slices.
    """
    differ = any(scores["deduplicated"]["n"] != scores["all"]["n"] for scores in scores_by_tta.values())
    subsets = [
        ({"tta": tta} | ({"rows": name} if differ else {}), scores[rows])
        for tta, scores in scores_by_tta.items()
        for rows, name in list(ROWS.items())[: 1 + differ]
    ]
    left = 1 + differ
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
    print_table(title, overall, left)
    if not verbose:
        return
    print_table("accuracy % of the most confident 50, 80 and 90 % of the faces", selective, left)
    if uncalibrated:
        print_table("without the temperature", uncalibrated, left)
    if votes:
        print_table("cross-entropy to the annotators' votes, and their entropy, its minimum", votes, left)
    print_table(f"by class, all rows, tta={tta}", by_class)
    print_slices(last.get("slices", {}))


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


def print_robustness(robustness: Mapping[str, Any], *, verbose: bool) -> None:
    """Print the mean accuracy, with `verbose` also by corruption and severity."""
    rows = [
        {"corruption": name.replace("_", " ")}
        | {f"severity {severity}": format_percent(value) for severity, (value, _, _) in enumerate(intervals, start=1)}
        | {"mean": format_percent(float(np.mean([value for value, _, _ in intervals])))}
        for name, intervals in robustness["accuracy"].items()
    ]
    if verbose:
        print_table("accuracy % on corrupted faces", rows)
    print(f"accuracy on corrupted faces, mean over corruptions and severities: {format_robustness(robustness)}")


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row))


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    columns = _columns(rows)
    return columns, [[row.get(column, "") for column in columns] for row in rows]
