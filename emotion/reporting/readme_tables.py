"""The README's tables of results, from kept run records and nothing else."""

import json
import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from omegaconf import OmegaConf

from emotion.checkpoints import portable
from emotion.checkpoints.locate import zoo
from emotion.config.compose import as_list
from emotion.data.readers.fer2013 import PUBLISHED_MD5
from emotion.errors import UserError
from emotion.io.atomic import write_atomically
from emotion.metrics.statistics import mean_over_seeds, wilson_interval
from emotion.records.archive import experiment
from emotion.records.recipe import group_by_recipe
from emotion.records.run_folder import Run
from emotion.records.run_record import RunRecord
from emotion.reporting.tables import markdown_table
from emotion.reporting.text import format_interval, format_mean_std, format_percent

Row = dict[str, str]
Figure = Sequence[float]
"""A share with its 95 % interval."""


def results_tables(kept: Sequence[Run]) -> str:
    """Markdown: what each experiment published, what its runs reached, how to repeat them; then F1 by class."""
    groups = group_by_recipe(kept)
    written = markdown_table([_row(group) for group in groups])
    by_class: dict[tuple[str, ...], list[Row]] = {}
    for group in groups:
        row = _classes(group)
        by_class.setdefault(tuple(row), []).append(row)
    return "\n".join([written, *(markdown_table(rows) for rows in by_class.values())])


def _row(group: Sequence[Run]) -> Row:
    first = group[0].record
    config, tests = first.config, [run.record.test_scores for run in group]
    name, tta, plain = config["name"], config["tta"], [test["none"]["all"] for test in tests]
    as_it_stands = experiment(name)
    published = as_it_stands["published"]
    calibrated = all(run.record.calibration for run in group)
    seeds = [str(run.record.seed) for run in group]
    multirun = "-m " if len(seeds) > 1 else ""
    overrides = [f"experiment={name}", *_given(as_it_stands, config), f"seed={','.join(seeds)}"]
    return {
        "experiment": name,
        "parameters": f"{first.parameters:,}",
        "published %": _published(published) if published else "-",
        "ours less published": _against(published, group) if published else "-",
        "accuracy %": _shown([scores["accuracy"] for scores in plain]),
        "macro F1 %": _shown([scores["macro_f1"] for scores in plain]),
        "with views %": f"{_shown([test[tta]['all']['accuracy'] for test in tests])} ({tta})",
        "clean rows %": _shown([test["none"]["deduplicated"]["accuracy"] for test in tests]),
        "ECE %": format_mean_std([scores.get("uncalibrated", scores)["ece"] for scores in plain]),
        "ECE % with temperature": format_mean_std([scores["ece"] for scores in plain]) if calibrated else "-",
        "minutes": _minutes(group),
        "split (test faces)": f"{first.split_name} ({plain[0]['n']:,})",
        "n": str(len(group)),
        "commit": ", ".join(dict.fromkeys((run.record.commit or "")[:7] for run in group)),
        "command": f"`python -m emotion.train {multirun}{' '.join(overrides)}`",
    }


def _given(as_it_stands: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """The overrides by which a run gave what its experiment leaves open."""
    found, open_keys = OmegaConf.create(config), sorted(OmegaConf.missing_keys(OmegaConf.create(as_it_stands)))
    given = {key: as_list(OmegaConf.select(found, key)) for key in open_keys}
    return [f"{key}={some[0]}" if len(some) == 1 else f"{key}=[{','.join(some)}]" for key, some in given.items()]


def _published(published: dict[str, Any]) -> str:
    """66.3, macro F1 62.9; what it is of where that is not test, and whether it is a result at all."""
    kind = " (target)" if published.get("target") else ""
    of = " on validation" if published["part"] == "val" else " with views" if "tta" in published else ""
    f1 = f", macro F1 {100 * published['macro_f1']:.1f}" if "macro_f1" in published else ""
    recall = f", each recall above {100 * published['recall']:.0f}" if "recall" in published else ""
    return f"{100 * published['accuracy']:.2f}".rstrip("0").rstrip(".") + of + f1 + recall + kind


def _against(published: dict[str, Any], group: Sequence[Run]) -> str:
    """Each published figure held against ours, on the part that it is of."""
    plain = [run.record.test_scores["none"]["all"] for run in group]
    if published["part"] == "val":
        ours = [_validation(run) for run in group]
    else:
        tta = published.get("tta", "none")
        ours = [run.record.test_scores[tta]["all"]["accuracy"] for run in group]
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
    of_seeds = mean_over_seeds(shares).half if len(ours) > 1 else 0.0
    gap, half = 100 * (fmean(shares) - published), 100 * (of_faces**2 + of_seeds**2) ** 0.5
    verdict = "passed" if gap - half > 0 else "missed" if gap + half < 0 else "level"
    return f"{gap:+.2f} [{gap - half:+.2f}, {gap + half:+.2f}], {verdict}"


def _minutes(group: Sequence[Run]) -> str:
    """From the start of training to the scores, of runs that were not resumed."""
    minutes = [run.record.wall_seconds / 60 for run in group if run.record.wall_seconds]
    if len(minutes) < len(group):
        return "-"
    return format_mean_std([one / 100 for one in minutes])  # which shows hundredths as whole


def _validation(run: Run) -> list[float]:
    """The best epoch's accuracy on validation, which chose it."""
    record = run.record
    return wilson_interval(torch.tensor(record.best["score"], dtype=torch.float64), torch.tensor(record.split["val"]))


def _classes(group: Sequence[Run]) -> Row:
    """F1 of each class, with the published one behind it where there is one."""
    plain = [run.record.test_scores["none"]["all"] for run in group]
    name = group[0].record.name
    published = (experiment(name)["published"] or {}).get("f1", {})
    row = {"F1 %": name}
    for label in plain[0]["classes"]:
        known = f" (published {100 * published[label]:.1f})" if label in published else ""
        row[label] = _shown([scores["classes"][label]["f1"] for scores in plain]) + known
    return row


def _shown(figures: Sequence[Figure]) -> str:
    """One seed's figure with its interval, several seeds' mean and deviation."""
    return (
        format_interval(list(figures[0])) if len(figures) == 1 else format_mean_std([figure[0] for figure in figures])
    )


RECORD, SHEET = "explain.json", "sheet.png"
DRAWN = "synthetic faces"
PLACE = Path("explanations")
"""Below the folder of records."""


def keep_explanations(folder: Path, records: Path) -> Path:
    """Copy the record of explanations that lie in `folder`; of drawn faces, which nobody has, the sheet too.

    Raises:
        UserError: no such record, one of other data, not from a commit, or one that names places of this machine.
    """
    path = folder / RECORD
    if not path.is_file():
        raise UserError(f"{folder} holds no {RECORD}; expected a folder that python -m emotion.explain wrote.")
    text = path.read_text()
    record = json.loads(text)
    if not all("measures" in one for one in record["explained"]):
        raise UserError(f"{path} says nothing of how true the maps are; expected one with faithfulness.")
    if record["faces"]["digest"] != PUBLISHED_MD5 and record["faces"]["source"] != DRAWN:
        raise UserError(f"{path} is of {record['faces']['source']}; expected the published fer2013.csv or drawn faces.")
    if not (record["commit"] or "+changes").isalnum():
        raise UserError(f"{path}: no commit holds the code that it ran; commit first, then explain again.")
    if places := re.findall(r'"((?:/|~|[A-Z]:)[^"]*)"', text):
        raise UserError(f"{path} names places of this machine ({places[0]}); run it with data_dir=data.")
    kept = records / PLACE / folder.name
    kept.mkdir(parents=True, exist_ok=True)
    for name in (RECORD, SHEET) if record["faces"]["source"] == DRAWN else (RECORD,):
        write_atomically(kept / name, partial(shutil.copyfile, folder / name))
    return kept


def explanations_table(records: Path) -> str:
    """Markdown: a line for each network and method of every kept record, and for maps that know nothing."""
    lines = []
    for path in sorted((records / PLACE).glob(f"*/{RECORD}")):
        record = json.loads(path.read_text())
        said: set[str] = set()
        for one in record["explained"]:
            blank = f" ({one['blank']} of {record['faces']['n']} blank)" if one["blank"] else ""
            measured = (one["measures"], record, one["n"]["deletion"])
            lines.append(_explanation_line(one["network"], one["method"] + blank, *measured))
            lines[-1]["truer than the middle (ROAD)"] = _spread(one["truer_than_middle"]["road"], signed=True)
        for one in record["explained"]:
            if one["network"] not in said:
                said.add(one["network"])
                for name, measures in one["unknowing"].items():
                    lines.append(_explanation_line(one["network"], f"*{name}*", measures, record, one["n"]["deletion"]))
    return markdown_table(lines, left=3) if lines else ""


def _explanation_line(
    network: str, method: str, measures: dict[str, Any], record: dict[str, Any], faces: int
) -> dict[str, str]:
    shares = " / ".join(f"{100 * measures[name][0]:.0f}" for name in ("brows", "eyes", "nose", "mouth"))
    return {
        "network": network,
        "faces": f"{faces}, {'drawn' if record['faces']['source'] == DRAWN else 'FER2013'}",
        "method": method,
        "deletion, lower is truer": _spread(measures["deletion"]),
        "insertion, higher": _spread(measures["insertion"]),
        "ROAD, higher": _spread(measures["road"]),
        "truer than the middle (ROAD)": "-",
        "sensitivity, lower is steadier": _spread(measures.get("sensitivity")),
        "% on brows / eyes / nose / mouth": shares,
        "alike with all weights shuffled": _spread(measures.get("shuffled all")),
    }


def _spread(figure: list[float | None] | None, *, signed: bool = False) -> str:
    if figure is None or None in figure:
        return "-"
    sign = "+" if signed else ""
    return "{0:{3}.2f} [{1:{3}.2f}, {2:{3}.2f}]".format(*figure, sign)


def weights_table() -> str:
    """Markdown: a line for each of the weights, the best on its own test part first."""
    told = {name: RunRecord.from_dict(portable.read_description(path).record or {}) for name, path in zoo().items()}
    order = sorted(told, key=lambda name: -told[name].test_scores["none"]["all"]["accuracy"][0])
    return markdown_table([_weights_line(name, told[name]) for name in order])


def _weights_line(name: str, record: RunRecord) -> dict[str, str]:
    scores = record.test_scores
    one = scores["none"]
    return {
        "checkpoint": f"`{name}`",
        "parameters": f"{record.parameters:,}",
        "MB": f"{zoo()[name].stat().st_size / 1e6:.1f}",
        "classes": str(len(record.labels)),
        "accuracy %": format_interval(one["all"]["accuracy"]),
        "macro F1 %": format_interval(one["all"]["macro_f1"]),
        "with flip views %": format_interval(scores["flip"]["all"]["accuracy"]) if "flip" in scores else "-",
        "clean rows %": format_interval(one["deduplicated"]["accuracy"]),
        "ECE %": format_percent(one["all"]["ece"]),
        "split (test faces)": f"{record.split_name} ({one['all']['n']:,})",
        "commit": (record.commit or "")[:7],
        "command": f"`{record.command}`",
    }
