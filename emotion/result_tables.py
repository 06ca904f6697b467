"""The README's tables of results, from kept run records and nothing else."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from omegaconf import OmegaConf

from emotion import report, run_records
from emotion.cli import listed
from emotion.evaluation import wilson
from emotion.kept_runs import experiment
from emotion.report import mean_and_deviation, spread
from emotion.run_records import Run
from emotion.significance import mean_of

Row = dict[str, str]
Figure = Sequence[float]
"""A share with its 95 % interval."""


def tables(kept: Sequence[Run]) -> str:
    """Markdown: what each experiment published, what its runs reached, how to repeat them; then F1 by class."""
    groups = run_records.seeds_of(kept)
    written = report.markdown([_row(group) for group in groups])
    by_class: dict[tuple[str, ...], list[Row]] = {}
    for group in groups:
        row = _classes(group)
        by_class.setdefault(tuple(row), []).append(row)
    return "\n".join([written, *(report.markdown(rows) for rows in by_class.values())])


def _row(group: Sequence[Run]) -> Row:
    first = group[0].record
    config, tests = first["config"], [run.record["scores"]["test"] for run in group]
    name, views, plain = config["name"], config["views"], [test["none"]["all"] for test in tests]
    as_it_stands = experiment(name)
    published = as_it_stands["published"]
    calibrated = all(run.record.get("calibration") for run in group)
    seeds = [str(run.record["config"]["seed"]) for run in group]
    split = config["split"]["_target_"].rsplit(".", 1)[-1]
    multirun = "-m " if len(seeds) > 1 else ""
    overrides = [f"experiment={name}", *_given(as_it_stands, config), f"seed={','.join(seeds)}"]
    return {
        "experiment": name,
        "parameters": f"{first['parameters']:,}",
        "published %": _published(published) if published else "-",
        "ours less published": _against(published, group) if published else "-",
        "accuracy %": _shown([scores["accuracy"] for scores in plain]),
        "macro F1 %": _shown([scores["macro_f1"] for scores in plain]),
        "with views %": f"{_shown([test[views]['all']['accuracy'] for test in tests])} ({views})",
        "clean rows %": _shown([test["none"]["clean"]["accuracy"] for test in tests]),
        "ECE %": mean_and_deviation([scores.get("uncalibrated", scores)["ece"] for scores in plain]),
        "ECE % with temperature": mean_and_deviation([scores["ece"] for scores in plain]) if calibrated else "-",
        "minutes": _minutes(group),
        "split (test faces)": f"{split} ({plain[0]['n']:,})",
        "n": str(len(group)),
        "commit": ", ".join(dict.fromkeys(run.record["commit"][:7] for run in group)),
        "command": f"`python -m emotion.train {multirun}{' '.join(overrides)}`",
    }


def _given(as_it_stands: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """The overrides by which a run gave what its experiment leaves open."""
    found, open_keys = OmegaConf.create(config), sorted(OmegaConf.missing_keys(OmegaConf.create(as_it_stands)))
    given = {key: listed(OmegaConf.select(found, key)) for key in open_keys}
    return [f"{key}={some[0]}" if len(some) == 1 else f"{key}=[{','.join(some)}]" for key, some in given.items()]


def _published(published: dict[str, Any]) -> str:
    """66.3, macro F1 62.9; what it is of where that is not test, and whether it is a result at all."""
    kind = " (target)" if published.get("target") else ""
    of = " on validation" if published["part"] == "val" else " with views" if "views" in published else ""
    f1 = f", macro F1 {100 * published['macro_f1']:.1f}" if "macro_f1" in published else ""
    recall = f", each recall above {100 * published['recall']:.0f}" if "recall" in published else ""
    return f"{100 * published['accuracy']:.2f}".rstrip("0").rstrip(".") + of + f1 + recall + kind


def _against(published: dict[str, Any], group: Sequence[Run]) -> str:
    """Each published figure held against ours, on the part that it is of."""
    plain = [run.record["scores"]["test"]["none"]["all"] for run in group]
    if published["part"] == "val":
        ours = [_validation(run) for run in group]
    else:
        views = published.get("views", "none")
        ours = [run.record["scores"]["test"][views]["all"]["accuracy"] for run in group]
    said = _verdict(ours, published["accuracy"])
    if "macro_f1" in published:
        said += f"; macro F1 {_verdict([scores['macro_f1'] for scores in plain], published['macro_f1'])}"
    if "recall" in published:
        least = min(found["recall"][0] for scores in plain for found in scores["classes"].values())
        said += f"; least recall {100 * least:.1f} %"
    return said


def _verdict(ours: Sequence[Figure], published: float) -> str:
    """`+0.41 [-0.70, 1.51], level`: passed or missed where the interval leaves nothing else.

    The interval is of a mean over seeds: the faces' share of it as each seed's own interval says, the seeds' share
    Student's interval of their mean.
    """
    shares = [figure for figure, _, _ in ours]
    of_faces = fmean(upper - lower for _, lower, upper in ours) / 2
    of_seeds = mean_of(shares).half if len(ours) > 1 else 0.0
    gap, half = 100 * (fmean(shares) - published), 100 * (of_faces**2 + of_seeds**2) ** 0.5
    verdict = "passed" if gap - half > 0 else "missed" if gap + half < 0 else "level"
    return f"{gap:+.2f} [{gap - half:+.2f}, {gap + half:+.2f}], {verdict}"


def _minutes(group: Sequence[Run]) -> str:
    """From the start of training to the scores, of runs that were not resumed."""
    minutes = [run.record["wall_seconds"] / 60 for run in group if run.record.get("wall_seconds")]
    if len(minutes) < len(group):
        return "-"
    return mean_and_deviation([one / 100 for one in minutes])  # which shows hundredths as whole


def _validation(run: Run) -> list[float]:
    """The best epoch's accuracy on validation, which chose it."""
    record = run.record
    return wilson(torch.tensor(record["best"]["score"], dtype=torch.float64), torch.tensor(record["split"]["val"]))


def _classes(group: Sequence[Run]) -> Row:
    """F1 of each class, with the published one behind it where there is one."""
    plain = [run.record["scores"]["test"]["none"]["all"] for run in group]
    name = group[0].record["config"]["name"]
    published = (experiment(name)["published"] or {}).get("f1", {})
    row = {"F1 %": name}
    for label in plain[0]["classes"]:
        known = f" (published {100 * published[label]:.1f})" if label in published else ""
        row[label] = _shown([scores["classes"][label]["f1"] for scores in plain]) + known
    return row


def _shown(figures: Sequence[Figure]) -> str:
    """One seed's figure with its interval, several seeds' mean and deviation."""
    return spread(list(figures[0])) if len(figures) == 1 else mean_and_deviation([figure[0] for figure in figures])
