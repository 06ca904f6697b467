"""Runs ranked by their validation score."""

import math
from collections.abc import Sequence
from pathlib import Path

from emotion.io.atomic import write_text
from emotion.metrics.statistics import wilson_interval
from emotion.records.run_record import RunRecord
from emotion.reporting.tables import csv_table, markdown_table
from emotion.reporting.text import format_duration, format_interval

TITLE = "ranked by validation (optimistic for the best of many runs); 95 % intervals"
Row = dict[str, str]


def ranking_rows(records: Sequence[RunRecord], names: Sequence[str]) -> list[Row]:
    """Return a table row for each run, best validation score first.

    Runs whose epoch was chosen by different metrics are ranked separately, one metric after the other.
    """
    order = sorted(range(len(records)), key=lambda index: _key(records[index]))
    return [{"": str(place)} | _row(records[index], names[index]) for place, index in enumerate(order, start=1)]


def validation_score(record: RunRecord) -> list[float]:
    """Return the score of the best epoch: [accuracy, lower, upper], or [score] for another metric."""
    score = record.best["score"]
    return wilson_interval(score, record.split["val"]) if record.best["metric"] == "val/acc" else [score]


def write_ranking(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write ranking.md and ranking.csv."""
    write_text(folder / "ranking.csv", csv_table(rows))
    write_text(folder / "ranking.md", f"# {TITLE}\n\n{markdown_table(rows, left=2)}")
    return [folder / "ranking.md", folder / "ranking.csv"]


def _key(record: RunRecord) -> tuple[str, float]:
    score = -record.best["score"] if record.best["mode"] == "max" else record.best["score"]
    return record.best["metric"], score if math.isfinite(score) else math.inf


def _row(record: RunRecord, name: str) -> Row:
    score = validation_score(record)
    row = {
        "run": f"{name}{' (SYNTHETIC)' if record.is_synthetic else ''}",
        record.best["metric"]: format_interval(score) if len(score) == 3 else f"{score[0]:.4f}",
    }
    for tta, scores in record.test_scores.items():
        row["test %" if tta == "none" else f"test %, {tta}"] = format_interval(scores["all"]["accuracy"])
    return row | {"epochs": f"{record.epochs}", "time": format_duration(record.fit_seconds)}
