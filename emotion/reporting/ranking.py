"""Runs ranked by the monitored score of their best epoch, on validation or training."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from emotion.errors import counted
from emotion.io.atomic import write_text
from emotion.metrics.statistics import wilson_interval
from emotion.records.run_record import RunRecord
from emotion.reporting.tables import Row, csv_table, markdown_table
from emotion.reporting.text import format_duration, format_interval

TITLE = "ranked by the monitored score (optimistic for the best of many runs); 95 % intervals"


def ranking_tables(records: Sequence[RunRecord], names: Sequence[str]) -> dict[str, list[Row]]:
    """Return tables by title with a row for each run, best monitored score first.

    Only runs of the same metric, classes and faces of validation are ranked together; several tables name these.
    """
    groups: dict[str, list[tuple[RunRecord, str]]] = {}
    for record, name in zip(records, names, strict=True):
        groups.setdefault(_group(record), []).append((record, name))
    return {
        TITLE if len(groups) == 1 else f"{TITLE}: {group}": [
            {"": str(place)} | _row(record, name)
            for place, (record, name) in enumerate(sorted(runs, key=lambda run: _key(run[0])), start=1)
        ]
        for group, runs in groups.items()
    }


def monitored_score(record: RunRecord) -> list[float]:
    """Return the score of the best epoch: [accuracy, lower, upper], or [score] for another metric."""
    score = record.best["score"]
    return wilson_interval(score, record.num_validated) if record.best["metric"] == "val/acc" else [score]


def write_ranking(tables: Mapping[str, Sequence[Row]], folder: Path) -> list[Path]:
    """Write ranking.md, and ranking.csv, in which a last column names the table of each row if there are several."""
    several = len(tables) > 1
    rows = [row | ({"ranked among": title} if several else {}) for title, table in tables.items() for row in table]
    write_text(folder / "ranking.csv", csv_table(rows))
    text = [f"# {title}\n\n{markdown_table(table, left=2)}" for title, table in tables.items()]
    write_text(folder / "ranking.md", "\n".join(text))
    return [folder / "ranking.md", folder / "ranking.csv"]


def _group(record: RunRecord) -> str:
    """Return the metric, the classes and the faces of validation, which ranked runs have in common."""
    settings = {key: value for key, value in record.config["split"].items() if not key.startswith(("_", "exclude"))}
    data = f"{record.data['source']} ({str(record.data['digest'])[:8]})"
    return "; ".join(
        [
            record.best["metric"],
            ", ".join(record.labels),
            " ".join([record.split_name, *(f"{key}={value}" for key, value in settings.items())]),
            f"{counted(record.num_validated, 'face')} of {data}",
        ]
    )


def _key(record: RunRecord) -> float:
    score = -record.best["score"] if record.best["mode"] == "max" else record.best["score"]
    return float(score) if math.isfinite(score) else math.inf


def _row(record: RunRecord, name: str) -> Row:
    score, metric = monitored_score(record), record.best["metric"]
    row = {
        "run": f"{name}{' (SYNTHETIC)' if record.is_synthetic else ''}",
        **({f"{metric} %": format_interval(score)} if len(score) == 3 else {metric: f"{score[0]:.4f}"}),
    }
    for tta, scores in record.test_scores.items():
        row["test %" if tta == "none" else f"test %, {tta}"] = format_interval(scores["all"]["accuracy"])
    return row | {"epochs": f"{record.epochs}", "time": format_duration(record.fit_seconds)}
