"""Runs side by side, and whether they differ by more than chance: python -m emotion.compare RUN RUN ..."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from emotion.cli import bare_arguments_are, duration, listed, near, verb
from emotion.errors import UserError

if TYPE_CHECKING:
    from emotion.runs import Run
    from emotion.significance import Difference, Paired

Row = dict[str, str]


class Entry(NamedTuple):
    """A run under the name that it has here, its scores, and how it differs from the first run."""

    name: str
    run: "Run"
    scores: dict[str, Any]
    pair: "Paired | str"  # or why there is none


def compare(cfg: DictConfig, folder: Path) -> list["Paired"]:
    """Print and write the table of the runs, and the paired test of each recipe's first run against the first of all.

    Raises:
        UserError: something given is missing or wrong.
    """
    from emotion import plots, report, runs
    from emotion.files import write_text

    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    views, rows = settings["views"], settings["rows"]
    if not settings["runs"]:
        raise UserError("no run given; expected folders of runs: python -m emotion.compare RUN RUN")
    if rows not in ("all", "clean"):
        raise UserError(f"rows={rows}: expected all or clean.")
    found = runs.find(listed(settings["runs"]))
    groups = runs.seeds_of(found)
    entries = _entries(found, groups, views, rows)
    title = f"test, views={views}, rows={rows}"
    tables = {
        "runs": [_overview(one) for one in entries],
        f"{title}; 95 % intervals": [_figures(one) for one in entries],
        "F1 % by class": [_by_class(one) for one in entries],
    }
    several = [_group(group, views, rows) for group in groups if len(group) > 1]
    if several:
        tables["several seeds of one recipe: mean and standard deviation"] = several
    sentences = _sentences(entries, all(len(group) > 1 for group in groups))
    text = f"# {title}\n"
    text += "".join(f"\n{caption}\n\n{report.markdown(table)}" for caption, table in tables.items())
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "comparison.md", text + "".join(f"\n{sentence}\n" for sentence in sentences))
    write_text(folder / "comparison.csv", _csv(entries))
    names = [f"{one.name}\n{_test(one.run)}" for one in entries]
    plots.save(plots.comparison(names, [one.scores for one in entries], title), folder / "comparison.png")
    for caption, table in tables.items():
        report.print_table(caption, table)
    print("\n".join(sentences))
    print("\n".join(f"wrote {near(folder / f'comparison.{kind}')}" for kind in ("md", "csv", "png")))
    return [one.pair for one in entries if not isinstance(one.pair, str)]


def _entries(found: Sequence["Run"], groups: Sequence[Sequence["Run"]], views: str, rows: str) -> list[Entry]:
    from emotion import runs, significance

    scores = [_scores(run, views, rows) for run in found]
    tested = {id(group[0]) for group in groups if found[0] not in group}
    pairs = [_paired(found[0], run, views, rows) if id(run) in tested else "" for run in found]
    corrected = iter(significance.corrected([pair for pair in pairs if not isinstance(pair, str)]))
    return [
        Entry(name, run, figures, pair if isinstance(pair, str) else next(corrected))
        for name, run, figures, pair in zip(runs.names(found), found, scores, pairs, strict=True)
    ]


def _scores(run: "Run", views: str, rows: str) -> dict[str, Any]:
    by_views = run.record["scores"]["test"]
    if views not in by_views:
        raise UserError(f"{run.folder} recorded scores of views {', '.join(by_views)}; found views={views} asked for.")
    scores: dict[str, Any] = by_views[views][rows]
    if missing := {"n", "classes", "accuracy", "macro_f1", "ece", "nll", "brier"} - set(scores):
        raise UserError(f"{run.folder}: its record has no {', '.join(sorted(missing))}; another version wrote it.")
    return scores


def _test(run: "Run") -> str:
    """What it was judged on: official, 7 classes."""
    config, source = run.record["config"], run.record["data"]["source"]
    drawn = ", SYNTHETIC" if source.startswith("synthetic") else ""
    left_out = sum((run.record["data"].get("dropped") or {"rows": {}})["rows"].values())
    dropped = f", {left_out:,} rows left out" if left_out else ""
    return f"{config['split']['_target_'].rsplit('.', 1)[-1]}, {len(config['labels'])} classes{drawn}{dropped}"


def _overview(one: Entry) -> Row:
    record = one.run.record
    return {
        "run": one.name,
        "test": _test(one.run),
        "faces": f"{one.scores['n']:,}",
        "seed": f"{record['config']['seed']}",
        "parameters": f"{record['parameters']:,}",
        "epochs": f"{record['epochs']}",
        "time": duration(record["fit_seconds"]),
    }


def _figures(one: Entry) -> Row:
    from emotion import report

    return {
        "run": one.name,
        "accuracy %": report.spread(one.scores["accuracy"]),
        "macro F1 %": report.spread(one.scores["macro_f1"]),
        "ECE %": report.share(one.scores["ece"]),
        "NLL": report.loss(one.scores["nll"]),
        "Brier": report.loss(one.scores["brier"]),
    }


def _by_class(one: Entry) -> Row:
    return {"run": one.name} | {c: f"{100 * found['f1'][0]:.1f}" for c, found in one.scores["classes"].items()}


def _group(group: Sequence["Run"], views: str, rows: str) -> Row:
    from emotion.report import mean_and_deviation

    scores = [_scores(run, views, rows) for run in group]
    return {
        "recipe": group[0].record["config"]["name"],
        "seeds": ", ".join(str(run.record["config"]["seed"]) for run in group),
        "accuracy %": mean_and_deviation([s["accuracy"][0] for s in scores]),
        "macro F1 %": mean_and_deviation([s["macro_f1"][0] for s in scores]),
        "ECE %": mean_and_deviation([s["ece"] for s in scores]),
    }


def _paired(first: "Run", second: "Run", views: str, rows: str) -> "Paired | str":
    """The test over the faces that both judged, or why there is none."""
    import numpy as np

    from emotion import runs, significance

    labels = first.record["config"]["labels"]
    if first.record["data"]["digest"] != second.record["data"]["digest"]:
        return "it was judged on other data"
    if list(labels.items()) != list(second.record["config"]["labels"].items()):
        return "it tells other classes apart"
    one, other = (runs.read_predictions(run, views) for run in (first, second))
    if rows == "clean":
        one, other = (found.of(found.clean) for found in (one, other))
    shared, at, at_other = np.intersect1d(one.rows, other.rows, return_indices=True)
    if len(shared) == 0:
        return "it was judged on other faces"
    if (one.labels[at] != other.labels[at_other]).any():
        raise UserError(f"{first.folder} and {second.folder} give the same faces other labels; one is damaged.")
    return significance.compare(one.labels[at], one.predicted[at], other.predicted[at_other], len(labels))


def _sentences(entries: Sequence[Entry], several_seeds: bool) -> list[str]:
    """What a person needs to know of each pair."""
    first, *others = entries
    pairs = [one.pair for one in others if not isinstance(one.pair, str)]
    said = [_sentence(first.name, one, len(pairs)) for one in others if one.pair]
    if pairs:
        recipes = (
            "the deviations over seeds tell how far it goes by chance."
            if several_seeds
            else "only several seeds of each tell."
        )
        said.append(f"The tests are of these trained networks; whether their recipes differ, {recipes}")
    return said


def _sentence(first: str, one: Entry, pairs: int) -> str:
    if isinstance(one.pair, str):
        return f"{one.name} is not tested against {first}: {one.pair}."
    pair, tests = one.pair, f"corrected for {2 * pairs} tests"
    return (
        f"{one.name} is {_points(pair.accuracy, 'more', 'less')} accurate than {first} on {pair.faces:,} faces "
        f"({pair.only_second} against {pair.only_first} that it alone has right), McNemar {_p(pair.accuracy)} {tests}: "
        f"{_verdict(pair.accuracy)}. "
        f"Its macro F1 is {_points(pair.macro_f1, 'higher', 'lower')}, bootstrap {_p(pair.macro_f1)}: "
        f"{_verdict(pair.macro_f1)}."
    )


def _points(difference: "Difference", more: str, less: str) -> str:
    """`0.25 points [-0.60, 1.10] more`, or the same turned round to less."""
    sign = -1 if difference.figure < 0 else 1
    figure, lower, upper = (100 * sign * value for value in difference[:3])
    lower, upper = min(lower, upper), max(lower, upper)
    return f"{figure:.2f} points [{lower:.2f}, {upper:.2f}] {more if sign > 0 else less}"


def _p(difference: "Difference") -> str:
    return "p < 0.0001" if difference.p < 1e-4 else f"p = {difference.p:.2g}"


def _verdict(difference: "Difference") -> str:
    from emotion.significance import CHANCE

    return "a difference" if difference.p < CHANCE else "not a difference"


def _csv(entries: Sequence[Entry]) -> str:
    """One line a run, every figure with its interval in columns of its own; differences are from the first run."""
    lines = []
    for one in entries:
        record, scores = one.run.record, one.scores
        line: dict[str, Any] = {
            "run": one.name,
            "network": record["config"]["model"]["_target_"].rsplit(".", 1)[-1],
            "seed": record["config"]["seed"],
            "data": record["data"]["source"],
            "test": _test(one.run),
            "parameters": record["parameters"],
            "epochs": record["epochs"],
            "fit_seconds": record["fit_seconds"],
            "commit": record["commit"],
            "faces": scores["n"],
            "ece": scores["ece"],
        }
        for key in ("accuracy", "macro_f1", "nll", "brier"):
            line |= _columns(key, scores[key])
        for label, figures in scores["classes"].items():
            line |= _columns(f"f1/{label}", figures["f1"])
        if not isinstance(one.pair, str):
            for key, difference in (("accuracy", one.pair.accuracy), ("macro_f1", one.pair.macro_f1)):
                line |= _columns(f"{key}_difference", difference[:3]) | {f"{key}_p_holm": difference.p}
        lines.append(line)
    columns = list(dict.fromkeys(key for line in lines for key in line))
    table = csv.DictWriter(text := io.StringIO(), columns, lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    return text.getvalue()


def _columns(key: str, figures: Sequence[float | None]) -> dict[str, float | None]:
    return dict(zip((key, f"{key}_low", f"{key}_high"), figures, strict=True))


@verb("compare")
def main(cfg: DictConfig) -> None:
    """Compare and report."""
    compare(cfg, Path(cfg.output or near(Path(HydraConfig.get().runtime.output_dir))))


if __name__ == "__main__":
    bare_arguments_are("runs")
    main()
