"""The generated tables of README.md and outputs/records/README.md, made from archived records only."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from emotion.checkpoints import portable
from emotion.checkpoints.locate import DEFAULT, zoo
from emotion.config.migrate import migrate
from emotion.data.faces import SYNTHETIC
from emotion.errors import UserError
from emotion.io.bounded import read_json_object
from emotion.metrics.statistics import sample_mean, wilson_interval
from emotion.records.archive import EXPLANATIONS, EXPLANATIONS_RECORD, experiment
from emotion.records.recipe import group_by_recipe
from emotion.records.run_folder import Run, find_finished
from emotion.records.run_record import RunRecord
from emotion.reporting.tables import Row, markdown_table
from emotion.reporting.text import format_interval, format_mean_std, format_percent

README_TABLES = ("results", "confusion")
RECORDS_TABLES = ("scores", "f1", "explanations", "weights", "promises")
PROMISES = {
    "resume": "A run that is stopped at any moment and resumed in a new process equals an uninterrupted run",
    "order": "The order of faces depends on seed, epoch and batch only",
    "losses": "Two runs with one seed have bit-equal losses at every step, for every model",
    "killed": "`kill -9` at any moment leaves readable files and loses at most one checkpoint interval",
    "atomic": "Files are written beside their place, synced, and moved there in one step",
    "signals": "SIGTERM, SIGINT and SIGUSR1 end within 10 s in a complete checkpoint and the right exit status",
    "disk": "A full or read-only disk ends in one message and leaves previous files unchanged",
    "own files": "Damaged or swapped files are refused, and `resume=auto` uses the previous checkpoint",
    "data": "Damaged data gives the same faces or one message",
    "files": "A malicious file runs no code and is refused in less than 1 GB of memory",
    "targets": "A config with a `_target_` that is not allowed is refused",
    "images": "A malicious image is processed or refused within 2 s and 200 MB",
    "demo": "The demo serves its clients while others attack it",
    "together": "Concurrent processes share a cache and refuse to share a run",
    "quiet": "Nothing is started, opened or written that was not requested",
    "kernels": "Each layer in bfloat16 is within 2 % of float32 and not slower, or float32 is used",
}
"""What each group of the tests in tests/promises checks."""

FURTHER_COLUMNS = (
    ("with TTA %", "deduplicated %", "ECE %", "ECE % uncalibrated", "ECE % with temperature"),
    ("parameters", "minutes", "split (test faces)", "commit"),
    ("command",),
)
"""Columns of the further tables: scores, and what was run."""

Interval = Sequence[float]
"""A share with its 95 % interval: value, lower, upper."""


class Estimate(NamedTuple):
    """The mean over n seeds, with an interval that covers both other faces and other seeds."""

    n: int
    mean: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return format_interval(self[1:])

    def difference_to(self, published: float) -> str:
        """Return the difference in points and what its interval shows: `below: -2.52 [-3.64, -1.41]`."""
        difference, low, high = (100 * (share - published) for share in self[1:])
        verdict = "above" if low > 0 else "below" if high < 0 else "within interval"
        return f"{verdict}: {difference:+.2f} [{low:+.2f}, {high:+.2f}]"


def make_tables(records: Path) -> dict[str, str]:
    """Return every table as Markdown, by the name of its markers.

    Raises:
        UserError: There is no archived run.
    """
    groups = group_by_recipe(find_finished([str(records)]))
    return {
        "results": results_table(groups),
        "scores": scores_table(groups),
        "f1": f1_tables(groups),
        "explanations": explanations_table(records),
        "weights": weights_table(),
        "confusion": confusion_table(),
        "promises": promises_table(records),
    }


def fill(path: Path, text: str, tables: Mapping[str, str], required: Sequence[str]) -> str:
    """Replace what stands between `<!-- NAME -->` and `<!-- end of NAME -->` by the table, for each pair in the text.

    Raises:
        UserError: The markers of a required table are missing.
    """
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if found and closed:
            text = f"{head}{begin}\n\n{table}\n{end}{tail}"
        elif name in required:
            raise UserError(f"{path} has no place for a table; expected a line {begin} and below it {end}.")
    return text


def results_table(groups: Sequence[Sequence[Run]]) -> str:
    """Return the published and reached figures of each experiment that has published figures or a target."""
    rows = []
    for group in groups:
        name = group[0].record.name
        published = experiment(name)["published"]
        if not published:
            continue
        figures = "; macro F1 ".join(map(str, _reached(published, group).values()))
        rows.append(
            {
                "experiment": name,
                "published %": _published(published),
                "reached %": f"{figures}, n = {len(group)}",
                "difference to published": _difference(published, group),
            }
        )
    return markdown_table(rows, left=4)


def scores_table(groups: Sequence[Sequence[Run]]) -> str:
    """Return all test scores of each experiment, and below them how it was run."""
    return _narrow_tables([_scores_row(group) for group in groups])


def f1_tables(groups: Sequence[Sequence[Run]]) -> str:
    """Return the F1 by class of each experiment, with the published one if known; a table for each set of classes."""
    by_classes: dict[tuple[str, ...], list[Row]] = {}
    for group in groups:
        name, plain = group[0].record.name, [run.record.test_scores["none"]["all"] for run in group]
        published = (experiment(name)["published"] or {}).get("f1", {})
        row = {"F1 %": name}
        for label in plain[0]["classes"]:
            row[label] = _format_seeds([scores["classes"][label]["f1"] for scores in plain])
            if label in published:
                row[label] += f" ({format_percent(published[label])})"
        by_classes.setdefault(tuple(row), []).append(row)
    return "\n".join(markdown_table(rows) for rows in by_classes.values())


def explanations_table(records: Path) -> str:
    """Return the faithfulness of each method's maps and of baseline maps, a table for each network."""
    by_network: dict[str, list[Row]] = {}
    for path in sorted((records / EXPLANATIONS).glob(f"*/{EXPLANATIONS_RECORD}")):
        record = migrate(read_json_object(path))
        source = "synthetic data" if record["faces"]["source"] == SYNTHETIC else "FER2013"
        baselines: dict[str, Mapping[str, Any]] = {}
        for explanation in record["explanations"]:
            network = f"{explanation['network']}, {explanation['n']['deletion']} faces of {source}"
            blank = f" ({explanation['blank']} of {record['faces']['n']} blank)" if explanation["blank"] else ""
            method = explanation["method"] + blank
            row = _explanation_row(method, explanation["measures"])
            row["gain over center (ROAD)"] = _format_measure(explanation["gain_over_center"]["road"], "+z.2f")
            by_network.setdefault(network, []).append(row)
            baselines.setdefault(network, explanation["baselines"])
        for network, measures_by_name in baselines.items():
            by_network[network] += [_explanation_row(f"*{name}*", of_one) for name, of_one in measures_by_name.items()]
    return "\n".join(f"{network}:\n\n{markdown_table(rows)}" for network, rows in by_network.items())


def weights_table() -> str:
    """Return the scores of the weights in emotion/zoo, best test accuracy first."""
    records = {name: RunRecord.from_dict(portable.read_description(path).record or {}) for name, path in zoo().items()}
    order = sorted(records, key=lambda name: -records[name].test_scores["none"]["all"]["accuracy"][0])
    return _narrow_tables([_weights_row(name, records[name]) for name in order])


def confusion_table() -> str:
    """Return the confusion matrix of the default weights' run on its test faces, in per cent of each true class."""
    record = RunRecord.from_dict(portable.read_description(zoo()[DEFAULT]).record or {})
    scores = record.test_scores[record.config["tta"]]["all"]
    rows = [
        {"true class": f"{label} ({sum(counts):,})"}
        | {name: f"{100 * count / sum(counts):.0f}" for name, count in zip(scores["classes"], counts, strict=True)}
        for label, counts in zip(scores["classes"], scores["confusion"], strict=True)
    ]
    return markdown_table(rows)


def promises_table(records: Path) -> str:
    """Return how many cases of each promise held when `make test-hard` last counted them."""
    path = records / "promises.json"
    counts = read_json_object(path)["counts"] if path.is_file() else {}
    rows = [
        {"promise": PROMISES.get(name, name), "held": f"{count['held']:,} of {count['of']:,}"}
        for name, count in counts.items()
    ]
    return markdown_table(rows) if rows else ""


def _narrow_tables(rows: Sequence[Row]) -> str:
    """Return rows as several tables, since a page is too narrow for all columns.

    Each has the first column, except that of experiments' commands, which name the experiment.
    """
    first, *others = rows[0]
    main = [name for name in others if not any(name in part for part in FURTHER_COLUMNS)]
    parts = [main, *([name for name in others if name in part] for part in FURTHER_COLUMNS)]
    tables = [part if part == ["command"] and first == "experiment" else [first, *part] for part in parts]
    return "\n".join(
        markdown_table([{name: row[name] for name in table} for row in rows], left=1 + (table[1:] == ["command"]))
        for table in tables
    )


def _scores_row(group: Sequence[Run]) -> Row:
    first, tests = group[0].record, [run.record.test_scores for run in group]
    tta, plain = first.config["tta"], [test["none"]["all"] for test in tests]
    published = experiment(first.name)["published"] or {}
    calibrated = all(run.record.calibration for run in group)
    return {
        "experiment": first.name,
        "parameters": f"{first.parameters:,}",
        "published %": _published(published),
        "difference to published": _difference(published, group),
        "accuracy %": _format_seeds([scores["accuracy"] for scores in plain]),
        "macro F1 %": _format_seeds([scores["macro_f1"] for scores in plain]),
        "with TTA %": f"{_format_seeds([test[tta]['all']['accuracy'] for test in tests])} ({tta})",
        "deduplicated %": _format_seeds([test["none"]["deduplicated"]["accuracy"] for test in tests]),
        "ECE % uncalibrated": format_mean_std([scores.get("uncalibrated", scores)["ece"] for scores in plain]),
        "ECE % with temperature": format_mean_std([scores["ece"] for scores in plain]) if calibrated else "-",
        "minutes": format_mean_std([run.record.fit_seconds / 60 for run in group], scale=1),
        "split (test faces)": f"{first.split_name} ({plain[0]['n']:,})",
        "n": str(len(group)),
        "commit": ", ".join(dict.fromkeys((run.record.commit or "")[:7] for run in group)),
        "command": " <br> ".join(dict.fromkeys(f"`{run.record.command}`" for run in group)),
    }


def _published(published: Mapping[str, Any]) -> str:
    """Return `66.3, macro F1 62.9`, with the part or TTA if it is not plain test, or a dash."""
    if not published:
        return "-"
    text = f"{100 * published['accuracy']:.2f}".rstrip("0").rstrip(".")
    if published["part"] == "val":
        text += " on validation"
    elif "tta" in published:
        text += " with TTA"
    if "macro_f1" in published:
        text += f", macro F1 {format_percent(published['macro_f1'])}"
    if "recall" in published:
        text += f", each recall above {100 * published['recall']:.0f}"
    text += " (target)" if published.get("target") else ""
    return f"{text}; {published['note']}" if "note" in published else text


def _reached(published: Mapping[str, Any], group: Sequence[Run]) -> dict[str, Estimate]:
    """Return what the runs reached on the part and with the TTA of the published figures."""
    records = [run.record for run in group]
    if published.get("part") == "val":
        accuracy = [wilson_interval(record.best["score"], record.num_validated) for record in records]
    else:
        accuracy = [record.test_scores[published.get("tta", "none")]["all"]["accuracy"] for record in records]
    reached = {"accuracy": _estimate(accuracy)}
    if "macro_f1" in published:
        reached["macro_f1"] = _estimate([record.test_scores["none"]["all"]["macro_f1"] for record in records])
    return reached


def _difference(published: Mapping[str, Any], group: Sequence[Run]) -> str:
    if not published:
        return "-"
    text = "; macro F1 ".join(
        estimate.difference_to(published[key]) for key, estimate in _reached(published, group).items()
    )
    if "recall" in published:
        classes = [scores for run in group for scores in run.record.test_scores["none"]["all"]["classes"].values()]
        text += f"; lowest recall {format_percent(min(scores['recall'][0] for scores in classes))} %"
    return text


def _estimate(intervals: Sequence[Interval]) -> Estimate:
    """Combine the seeds' own intervals (other faces) with Student's interval of their mean (other seeds).

    The interval of a single seed is its own.
    """
    if len(intervals) == 1:
        return Estimate(1, *intervals[0])
    values, lower, upper = zip(*intervals, strict=True)
    mean, over_seeds = fmean(values), sample_mean(values).half_width or 0.0
    below, above = (math.hypot(fmean(bounds) - mean, over_seeds) for bounds in (lower, upper))
    return Estimate(len(values), mean, max(0.0, mean - below), min(1.0, mean + above))


def _explanation_row(method: str, measures: Mapping[str, Any]) -> Row:
    regions = " / ".join(f"{100 * measures[name][0]:.0f}" for name in ("brows", "eyes", "nose", "mouth"))
    return {
        "method": method,
        "deletion ↓": _format_measure(measures["deletion"]),
        "insertion ↑": _format_measure(measures["insertion"]),
        "ROAD ↑": _format_measure(measures["road"]),
        "gain over center (ROAD)": "-",
        "sensitivity ↓": _format_measure(measures.get("sensitivity")),
        "% on brows / eyes / nose / mouth": regions,
        "similarity with shuffled weights": _format_measure(measures.get("shuffled all")),
    }


def _weights_row(name: str, record: RunRecord) -> Row:
    scores, tta = record.test_scores, record.config["tta"]
    plain = scores["none"]["all"]
    return {
        "checkpoint": f"`{name}`",
        "parameters": f"{record.parameters:,}",
        "MB": f"{zoo()[name].stat().st_size / 1e6:.1f}",
        "classes": str(len(record.labels)),
        "accuracy %": format_interval(plain["accuracy"]),
        "macro F1 %": format_interval(plain["macro_f1"]),
        "with TTA %": f"{format_interval(scores[tta]['all']['accuracy'])} ({tta})",
        "deduplicated %": format_interval(scores["none"]["deduplicated"]["accuracy"]),
        "ECE %": format_percent(plain["ece"]),
        "split (test faces)": f"{record.split_name} ({plain['n']:,})",
        "commit": (record.commit or "")[:7],
        "command": f"`{record.command}`",
    }


def _format_seeds(intervals: Sequence[Interval]) -> str:
    """Format one seed's share with its interval, or the mean and standard deviation of several seeds."""
    if len(intervals) == 1:
        return format_interval(intervals[0])
    return format_mean_std([value for value, _, _ in intervals])


def _format_measure(interval: Sequence[float | None] | None, spec: str = "z.2f") -> str:
    if interval is None or None in interval:
        return "-"
    value, lower, upper = (format(bound, spec) for bound in interval)
    return f"{value} [{lower}, {upper}]"
