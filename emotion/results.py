"""The README's table of results, from kept run records and nothing else: python -m emotion.results [RUN ...]."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from emotion.cli import bare_arguments_are, near, verb
from emotion.errors import UserError

if TYPE_CHECKING:
    from emotion.runs import Run

Row = dict[str, str]

BEGIN, END = "<!-- results: written by python -m emotion.results -->", "<!-- end of results -->"


def results(cfg: DictConfig) -> str:
    """Keep the records of the given runs, write the table of all that are kept into the README; the table.

    Raises:
        UserError: a run that is none of an experiment on FER2013 from a commit, or a README without a place for it.
    """
    from emotion import runs
    from emotion.files import write_text

    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    records, readme = Path(settings["records"]), Path(settings["readme"])
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(f"{readme} has no place for the table; expected one line {BEGIN} and below it one {END}.")
    chosen = runs.find(settings["runs"])
    for run in chosen:
        _check(run)
    for run in chosen:
        print(f"kept {near(_keep(run, records).absolute())}")
    written = table(runs.find([str(records)]))
    head, rest = text.split(BEGIN)
    write_text(readme, f"{head}{BEGIN}\n\n{written}\n{END}{rest.split(END)[1]}")
    print(f"{written}\nwrote {near(readme.absolute())}")
    return written


def table(kept: Sequence["Run"]) -> str:
    """A Markdown line for each experiment: what was published, what its runs reached, how to repeat them."""
    from emotion import report, runs

    return report.markdown([_row(group) for group in runs.seeds_of(kept)])


def _row(group: Sequence["Run"]) -> Row:
    first = group[0].record
    config, tests = first["config"], [run.record["scores"]["test"] for run in group]
    published, views, plain = config["published"], config["views"], [test["none"]["all"] for test in tests]
    split = config["split"]["_target_"].rsplit(".", 1)[-1]
    seeds = ", ".join(str(run.record["config"]["seed"]) for run in group)
    commits = dict.fromkeys(run.record["commit"][:7] for run in group)
    return {
        "experiment": f"`{config['name']}`",
        "parameters": f"{first['parameters']:,}",
        "published %": _published(published),
        "reached": _reached(published, group),
        "accuracy %": _figure([scores["accuracy"] for scores in plain]),
        "macro F1 %": _figure([scores["macro_f1"] for scores in plain]),
        "with views %": f"{_mean([test[views]['all']['accuracy'][0] for test in tests])} ({views})",
        "clean rows %": _mean([test["none"]["clean"]["accuracy"][0] for test in tests]),
        "ECE %": _mean([scores["ece"] for scores in plain]),
        "split (test faces)": f"{split} ({plain[0]['n']:,})",
        "seeds": f"{seeds} (n = {len(group)})",
        "commit": ", ".join(commits),
        "command": f"`{first['command']}`",
    }


def _published(published: dict[str, Any]) -> str:
    of = " of validation" if published["part"] == "val" else ""
    f1 = f", macro F1 {100 * published['macro_f1']:.1f}" if "macro_f1" in published else ""
    return f"{100 * published['accuracy']:.2f}".rstrip("0").rstrip(".") + of + f1


def _reached(published: dict[str, Any], group: Sequence["Run"]) -> str:
    """Our figure less the published one, on the part that the published one is of."""
    import numpy as np

    records = [run.record for run in group]
    ours = {
        "test": [record["scores"]["test"]["none"]["all"]["accuracy"][0] for record in records],
        "val": [record["best"]["score"] for record in records],
    }[published["part"]]
    points = 100 * (float(np.mean(ours)) - published["accuracy"])
    return f"{'yes' if points >= 0 else 'no'}, {points:+.2f}"


def _figure(figures: Sequence[Sequence[float]]) -> str:
    """One seed's figure with its interval, several seeds' mean and deviation."""
    from emotion.report import spread

    return spread(list(figures[0])) if len(figures) == 1 else _mean([figure[0] for figure in figures])


def _mean(shares: Sequence[float]) -> str:
    from emotion.report import mean_and_deviation

    return mean_and_deviation(shares)


def _check(run: "Run") -> None:
    config = run.record["config"]
    if not config.get("published"):
        raise UserError(
            f"{run.folder} is no run of an experiment: start it as python -m emotion.train experiment=NAME."
        )
    if run.record["data"]["source"].startswith("synthetic"):
        raise UserError(f"{run.folder} was trained on {run.record['data']['source']}; expected a run on FER2013.")
    if not (run.record["commit"] or "+changes").isalnum():
        raise UserError(f"{run.folder}: no commit holds the code that it ran; commit first, then run it again.")
    if config["monitor"]["metric"] != "val/acc":
        raise UserError(f"{run.folder} chose its epoch by {config['monitor']['metric']}; expected val/acc.")


def _keep(run: "Run", records: Path) -> Path:
    """Copy what the table and `compare` need; an earlier run of the same name and seed gives way."""
    from emotion.files import write_atomically
    from emotion.runs import PREDICTIONS, RECORD

    config = run.record["config"]
    kept: Path = records / config["name"] / f"seed={config['seed']}"
    kept.mkdir(parents=True, exist_ok=True)
    for name in (RECORD, PREDICTIONS, "metrics.csv"):
        if (run.folder / name).is_file() and run.folder.resolve() != kept.resolve():
            write_atomically(kept / name, partial(shutil.copyfile, run.folder / name))
    return kept


@verb("results")
def main(cfg: DictConfig) -> None:
    """Keep, write, show."""
    results(cfg)


if __name__ == "__main__":
    bare_arguments_are("runs")
    main()
