"""The README's table of results, from kept run records and nothing else: python -m emotion.results [RUN ...]."""

import re
import shutil
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from emotion.cli import CONF, bare_arguments_are, compose, listed, near, verb
from emotion.errors import UserError

if TYPE_CHECKING:
    from emotion.runs import Run

Row = dict[str, str]
Figure = Sequence[float]
"""A share with its 95 % interval."""

BEGIN, END = "<!-- results: written by python -m emotion.results -->", "<!-- end of results -->"
BEGIN_EXPLANATIONS = "<!-- explanations: written by python -m emotion.results -->"
END_EXPLANATIONS = "<!-- end of explanations -->"
BEGIN_WEIGHTS, END_WEIGHTS = "<!-- weights: written by python -m emotion.results -->", "<!-- end of weights -->"


def results(cfg: DictConfig) -> str:
    """Keep the records of given runs and explanations, write the tables of all that is kept into the README; the runs'.

    Raises:
        UserError: a run that is not an experiment as it stands, on FER2013, from a commit; another run of its seed is
            kept; explanations that cannot be kept; or the README has no place for the tables.
    """
    from emotion import kept_explanations, kept_weights, runs
    from emotion.files import write_text

    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    records, readme = Path(settings["records"]), Path(settings["readme"])
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    places = [(BEGIN, END), (BEGIN_EXPLANATIONS, END_EXPLANATIONS), (BEGIN_WEIGHTS, END_WEIGHTS)]
    for begin, end in places:
        if end not in text.partition(begin)[2]:
            raise UserError(f"{readme} has no place for a table; expected a line {begin} and below it {end}.")
    chosen = runs.find(listed(settings["runs"]))
    for run in chosen:
        _check(run, records)
    for run in chosen:
        print(f"kept {near(_keep(run, records).absolute())}")
    for folder in listed(settings["explanations"]):
        print(f"kept {near(kept_explanations.keep(Path(folder), records).absolute())}")
    written, explained = tables(runs.find([str(records)])), kept_explanations.table(records)
    for (begin, end), table in zip(places, (written, explained, kept_weights.table()), strict=True):
        head, _, rest = text.partition(begin)
        text = f"{head}{begin}\n\n{table}\n{end}{rest.partition(end)[2]}"
    write_text(readme, text)
    print(f"{written}\n{explained}\nwrote {near(readme.absolute())}")
    return written


def tables(kept: Sequence["Run"]) -> str:
    """Markdown: what each experiment published, what its runs reached, how to repeat them; then F1 by class."""
    from emotion import report, runs

    groups = runs.seeds_of(kept)
    written = report.markdown([_row(group) for group in groups])
    by_class: dict[tuple[str, ...], list[Row]] = {}
    for group in groups:
        row = _classes(group)
        by_class.setdefault(tuple(row), []).append(row)
    return "\n".join([written, *(report.markdown(rows) for rows in by_class.values())])


@cache
def experiment(name: str) -> dict[str, Any]:
    """The config of conf/experiment/`name`; not to be changed, as whoever asks next is given the same.

    Raises:
        UserError: there is none of that name.
    """
    names = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
    if name not in names:
        raise UserError(
            f"{name} is no experiment; expected {', '.join(names)}: python -m emotion.train experiment=NAME."
        )
    cfg = compose("train", f"experiment={name}", f"name={name}", "run_dir=RUN")
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def _row(group: Sequence["Run"]) -> Row:
    from emotion.report import mean_and_deviation

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


def _against(published: dict[str, Any], group: Sequence["Run"]) -> str:
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
    from statistics import fmean

    from emotion.significance import mean_of

    shares = [figure for figure, _, _ in ours]
    of_faces = fmean(upper - lower for _, lower, upper in ours) / 2
    of_seeds = mean_of(shares).half if len(ours) > 1 else 0.0
    gap, half = 100 * (fmean(shares) - published), 100 * (of_faces**2 + of_seeds**2) ** 0.5
    verdict = "passed" if gap - half > 0 else "missed" if gap + half < 0 else "level"
    return f"{gap:+.2f} [{gap - half:+.2f}, {gap + half:+.2f}], {verdict}"


def _minutes(group: Sequence["Run"]) -> str:
    """From the start of training to the scores, of runs that were not resumed."""
    from emotion.report import mean_and_deviation

    minutes = [run.record["wall_seconds"] / 60 for run in group if run.record.get("wall_seconds")]
    if len(minutes) < len(group):
        return "-"
    return mean_and_deviation([one / 100 for one in minutes])  # which shows hundredths as whole


def _validation(run: "Run") -> list[float]:
    """The best epoch's accuracy on validation, which chose it."""
    import torch

    from emotion.evaluation import wilson

    record = run.record
    return wilson(torch.tensor(record["best"]["score"], dtype=torch.float64), torch.tensor(record["split"]["val"]))


def _classes(group: Sequence["Run"]) -> Row:
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
    from emotion.report import mean_and_deviation, spread

    return spread(list(figures[0])) if len(figures) == 1 else mean_and_deviation([figure[0] for figure in figures])


def _check(run: "Run", records: Path) -> None:
    from emotion import runs
    from emotion.data.fer2013_csv import PUBLISHED_MD5

    record, config = run.record, run.record["config"]
    if differing := runs.differing(config, experiment(config["name"])):
        raise UserError(f"{run.folder} is not {config['name']} as it stands: it has another {', '.join(differing)}.")
    if record["data"]["digest"] != PUBLISHED_MD5:
        raise UserError(f"{run.folder} was trained on {record['data']['source']}; expected the published fer2013.csv.")
    if mix := record["data"].get("mix"):
        raise UserError(f"{run.folder}: {mix['source']} was mixed into its training; expected FER2013 alone.")
    if not (record["commit"] or "+changes").isalnum():
        raise UserError(f"{run.folder}: no commit holds the code that it ran; commit first, then run it again.")
    if places := re.findall(r'"((?:/|~|[A-Z]:)[^"]*)"', (run.folder / runs.RECORD).read_text()):
        raise UserError(
            f"{run.folder}: its record names places of this machine ({places[0]}); run it with data_dir=data."
        )
    kept = runs.read_record(_place(run, records))
    if kept not in (None, record):
        raise UserError(f"{_place(run, records)} is another run of that seed; remove it first if it is to give way.")


def _keep(run: "Run", records: Path) -> Path:
    """Copy what the tables and `compare` need."""
    from emotion.files import write_atomically
    from emotion.runs import PREDICTIONS, RECORD

    kept = _place(run, records)
    kept.mkdir(parents=True, exist_ok=True)
    for name in (RECORD, PREDICTIONS, "metrics.csv"):
        if (run.folder / name).is_file() and run.folder.resolve() != kept.resolve():
            write_atomically(kept / name, partial(shutil.copyfile, run.folder / name))
    return kept


def _place(run: "Run", records: Path) -> Path:
    config = run.record["config"]
    place: Path = records / config["name"] / f"seed={config['seed']}"
    return place


@verb("results")
def main(cfg: DictConfig) -> None:
    """Keep, write, show."""
    results(cfg)


if __name__ == "__main__":
    bare_arguments_are("runs")
    main()
