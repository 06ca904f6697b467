"""Runs side by side, and whether they differ by more than chance: python -m emotion.compare RUN RUN ..."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from emotion.cli import bare_arguments_are, duration, near, verb
from emotion.errors import UserError

if TYPE_CHECKING:
    from emotion.runs import Run
    from emotion.significance import Difference, Paired

Row = dict[str, str]


def compare(cfg: DictConfig, folder: Path) -> list["Paired"]:
    """Print and write the table of the runs; for each but the first that judged the same faces, the paired test.

    Raises:
        UserError: something given is missing or wrong.
    """
    from emotion import plots, report, runs, significance
    from emotion.files import write_text

    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    if not settings["runs"]:
        raise UserError("no run given; expected folders of runs: python -m emotion.compare RUN RUN")
    if settings["rows"] not in ("all", "clean"):
        raise UserError(f"rows={settings['rows']}: expected all or clean.")
    found = runs.find(settings["runs"])
    names, views, rows = runs.names(found), settings["views"], settings["rows"]
    scores = [_scores(run, views, rows) for run in found]
    overview = [_overview(*row) for row in zip(names, found, scores, strict=True)]
    by_class = [_by_class(*row) for row in zip(names, scores, strict=True)]
    groups = [_group(group, views, rows) for group in runs.seeds_of(found) if len(group) > 1]
    pairs = [_paired(found[0], run, views, rows) for run in found[1:]]
    corrected = significance.corrected([pair for pair in pairs if pair])
    tested = iter(corrected)
    sentences = [
        _sentence(names[0], name, next(tested), len(corrected)) if pair else f"{name}: other data or other classes."
        for name, pair in zip(names[1:], pairs, strict=True)
    ]
    if corrected:
        sentences.append("Whether the recipes differ is another question: several seeds of each would tell.")
    sources = ", ".join(dict.fromkeys(run.record["data"]["source"] for run in found))
    title = f"test of {sources}; views={views}, rows={rows}"
    tables = {f"{title}: figures with 95 % intervals": overview, f"{title}: F1 % by class": by_class}
    if groups:
        tables["several seeds: mean and standard deviation"] = groups
    text = f"# {title}\n"
    for caption, table in tables.items():
        report.print_table(caption, table)
        text += f"\n{caption}\n\n{report.markdown(table)}"
    print("\n".join(sentences))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "comparison.md", text + "".join(f"\n{sentence}\n" for sentence in sentences))
    write_text(folder / "comparison.csv", _csv(names, found, scores, pairs))
    plots.save(plots.comparison(names, scores, title), folder / "comparison.png")
    print("\n".join(f"wrote {near(folder / f'comparison.{kind}')}" for kind in ("md", "csv", "png")))
    return corrected


def _scores(run: "Run", views: str, rows: str) -> dict[str, Any]:
    by_views = run.record["scores"]["test"]
    if views not in by_views:
        raise UserError(f"{run.folder} recorded scores of views {', '.join(by_views)}; found views={views} asked for.")
    scores: dict[str, Any] = by_views[views][rows]
    if missing := {"accuracy", "macro_f1", "ece", "nll", "brier"} - set(scores):
        raise UserError(f"{run.folder}: its record has no {', '.join(sorted(missing))}; another version wrote it.")
    return scores


def _overview(name: str, run: "Run", scores: dict[str, Any]) -> Row:
    from emotion.report import spread

    record = run.record
    return {
        "run": name,
        "parameters": f"{record['parameters']:,}",
        "epochs": f"{record['epochs']}",
        "time": duration(record["fit_seconds"]),
        "seed": f"{record['config']['seed']}",
        "faces": f"{scores['n']:,}",
        "accuracy %": spread(scores["accuracy"]),
        "macro F1 %": spread(scores["macro_f1"]),
        "ECE %": f"{100 * scores['ece']:.1f}",
        "NLL": f"{scores['nll'][0]:.3f}",
    }


def _by_class(name: str, scores: dict[str, Any]) -> Row:
    return {"run": name} | {c: f"{100 * found['f1'][0]:.1f}" for c, found in scores["classes"].items()}


def _group(group: Sequence["Run"], views: str, rows: str) -> Row:
    from emotion.report import mean_and_deviation

    scores = [_scores(run, views, rows) for run in group]
    return {
        "experiment": group[0].record["config"]["name"],
        "seeds": ", ".join(str(run.record["config"]["seed"]) for run in group),
        "accuracy %": mean_and_deviation([s["accuracy"][0] for s in scores]),
        "macro F1 %": mean_and_deviation([s["macro_f1"][0] for s in scores]),
        "ECE %": mean_and_deviation([s["ece"] for s in scores]),
    }


def _paired(first: "Run", second: "Run", views: str, rows: str) -> "Paired | None":
    """The test over the faces that both were judged on; None where there are none, or the classes are others."""
    import numpy as np

    from emotion import runs, significance

    classes = list(first.record["config"]["labels"])
    same_data = first.record["data"]["digest"] == second.record["data"]["digest"]
    if not same_data or classes != list(second.record["config"]["labels"]):
        return None
    one, other = runs.read_predictions(first), runs.read_predictions(second)
    if rows == "clean":
        one, other = ({key: column[found["clean"]] for key, column in found.items()} for found in (one, other))
    shared, at, at_other = np.intersect1d(one["rows"], other["rows"], return_indices=True)
    if len(shared) == 0:
        return None
    return significance.compare(one["labels"][at], one[views][at], other[views][at_other], len(classes))


def _sentence(first: str, second: str, pair: "Paired", tests: int) -> str:
    """What a person needs to know of a pair."""
    from emotion.significance import CHANCE

    correction = f", p corrected for {tests} tests" if tests > 1 else ""
    verdict = "a difference between these two networks" if pair.accuracy.p < CHANCE else "not a difference"
    return (
        f"{second} is {_points(pair.accuracy, 'more', 'less')} accurate than {first} on {pair.faces:,} faces "
        f"({pair.only_second} against {pair.only_first} that it alone has right), McNemar p = {pair.accuracy.p:.2g}: "
        f"{verdict}. "
        f"Its macro F1 is {_points(pair.macro_f1, 'higher', 'lower')}, bootstrap p = {pair.macro_f1.p:.2g}{correction}."
    )


def _points(difference: "Difference", more: str, less: str) -> str:
    """`0.25 points [-0.60, 1.10] more`, or the same turned round to less."""
    sign = -1 if difference.figure < 0 else 1
    figure, lower, upper = (100 * sign * value for value in difference[:3])
    lower, upper = min(lower, upper), max(lower, upper)
    return f"{figure:.2f} points [{lower:.2f}, {upper:.2f}] {more if sign > 0 else less}"


def _csv(
    names: Sequence[str], found: Sequence["Run"], scores: Sequence[dict[str, Any]], pairs: Sequence["Paired | None"]
) -> str:
    """One line a run, every figure with its interval in columns of its own; differences are from the first run.

    Their p-values are each test's own.
    """
    lines = []
    for name, run, own, pair in zip(names, found, scores, [None, *pairs], strict=True):
        record = run.record
        line: dict[str, Any] = {
            "run": name,
            "network": record["config"]["model"]["_target_"].rsplit(".", 1)[-1],
            "seed": record["config"]["seed"],
            "split": record["config"]["split"]["_target_"].rsplit(".", 1)[-1],
            "parameters": record["parameters"],
            "epochs": record["epochs"],
            "fit_seconds": record["fit_seconds"],
            "commit": record["commit"],
            "faces": own["n"],
            "ece": own["ece"],
        }
        for key in ("accuracy", "macro_f1", "nll", "brier"):
            line |= _columns(key, own[key])
        for label, figures in own["classes"].items():
            line |= _columns(f"f1/{label}", figures["f1"])
        if pair:
            for key, difference in (("accuracy", pair.accuracy), ("macro_f1", pair.macro_f1)):
                line |= _columns(f"{key}_difference", difference[:3]) | {f"{key}_p": difference.p}
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
