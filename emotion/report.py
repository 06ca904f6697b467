"""Scores for people: tables in the terminal, pictures and JSON beside a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from rich.table import Table

from emotion import plots
from emotion.cli import console
from emotion.files import write_text
from emotion.loggers import read_metrics

Scores = Mapping[str, Any]


ROWS = {"all": "all", "clean": "not in training"}


def print_scores(title: str, by_views: Mapping[str, Scores]) -> None:
    """A line for each kind of view and rows, again against votes where there are some, then the last one's classes."""
    out = console()
    overall = Table(title=title, title_justify="left")
    for column in ("views", "rows", "faces", "accuracy %", "macro F1 %", "ECE %", "NLL"):
        overall.add_column(column, justify="left" if column in ("views", "rows") else "right")
    for views, scores in by_views.items():
        for rows, name in ROWS.items():
            found = scores[rows]
            figures = spread(found["accuracy"]), spread(found["macro_f1"]), share(found["ece"]), loss(found["nll"])
            overall.add_row(views, name, f"{found['n']:,}", *figures)
    out.print(overall)
    voted = {views: scores for views, scores in by_views.items() if "votes" in scores["all"]}
    against = [
        {"views": views, "rows": name}
        | {key.replace("_", "-"): loss(scores[rows]["votes"][key]) for key in ("cross_entropy", "entropy")}
        for views, scores in voted.items()
        for rows, name in ROWS.items()
    ]
    if against:
        print_table("against the taggers' votes, whose own entropy is the least possible", against, left=2)
    views, scores = list(by_views.items())[-1]
    classes = Table(title=f"by class, all rows, views={views}", title_justify="left")
    for column in ("class", "faces", "precision %", "recall %", "F1 %"):
        classes.add_column(column, justify="left" if column == "class" else "right")
    for name, found in scores["all"]["classes"].items():
        classes.add_row(name, f"{found['n']:,}", *(spread(found[key]) for key in ("precision", "recall", "f1")))
    out.print(classes)


def spread(figure: list[float]) -> str:
    """A share with its 95 % interval, in per cent: 71.7 [70.6, 72.9]."""
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * value for value in figure))


def share(figure: float | None) -> str:
    """A share in per cent, or a dash where there were no faces."""
    return "-" if figure is None else f"{100 * figure:.1f}"


def loss(figure: Sequence[float | None]) -> str:
    """A loss with its interval: 1.216 [1.184, 1.248]."""
    known = [f"{value:.3f}" for value in figure if value is not None]
    return "{} [{}, {}]".format(*known) if len(known) == 3 else " ".join(known) or "-"


def print_table(title: str, rows: Sequence[Mapping[str, str]], left: int = 1) -> None:
    """Rows of named cells, the first `left` columns to the left and the others to the right."""
    columns, lines = _cells(rows)
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right")
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


def save_scores(folder: Path, name: str, scores: Scores, classes: tuple[str, ...], title: str) -> list[Path]:
    """`name`.json and `name`_confusion.png in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    table, picture = folder / f"{name}.json", folder / f"{name}_confusion.png"
    write_text(table, json.dumps(scores, indent=2) + "\n")
    accuracy = f"accuracy {spread(scores['all']['accuracy'])} %, macro F1 {spread(scores['all']['macro_f1'])} %"
    plots.save(plots.confusion_matrix(np.array(scores["all"]["confusion"]), classes, f"{title}\n{accuracy}"), picture)
    return [table, picture]


def save_history(run_dir: Path, best_epoch: int) -> list[Path]:
    """history.png, drawn from the run's metrics.csv where it has one."""
    if not (run_dir / "metrics.csv").is_file():
        return []
    plots.save(plots.history(read_metrics(run_dir / "metrics.csv"), best_epoch), run_dir / "history.png")
    return [run_dir / "history.png"]


def save_label_map(run_dir: Path, classes: tuple[str, ...]) -> Path:
    """label_map.json: class name to the network's output."""
    path = run_dir / "label_map.json"
    write_text(path, json.dumps({name: index for index, name in enumerate(classes)}, indent=2) + "\n")
    return path


def log_hyperparameters(loggers: Sequence[Logger], settings: Mapping[str, Any], by_views: Mapping[str, Scores]) -> None:
    """The run's settings with its final scores, as TensorBoard's HPARAMS page compares them."""
    chosen = {name: settings[name] for name in ("model", "loss", "optimizer", "scheduler", "batch_size", "seed")}
    scores = {
        f"test/{name}/{views}": found["all"][name][0]
        for views, found in by_views.items()
        for name in ("accuracy", "macro_f1")
    }
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(chosen, scores)
            logger.save()


def mean_and_deviation(shares: Sequence[float]) -> str:
    """Shares of several seeds, in per cent: 65.9 ± 0.3, the deviation over n - 1; one of them alone has none."""
    values = 100 * np.asarray(shares)
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")
