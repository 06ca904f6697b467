"""The tables of compare: runs and recipes for people, and the same with every digit as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from emotion import ranking, report
from emotion.cli import duration
from emotion.matched import Entry, Recipe
from emotion.run_records import Run
from emotion.significance import Mean, Paired, Recipes, mean_of

Row = dict[str, str]


def tables(entries: Sequence[Entry], recipes: Sequence[Recipe], title: str) -> dict[str, list[Row]]:
    """Each under its caption."""
    shown = {
        "runs": [_overview(one) for one in entries],
        ranking.TITLE: ranking.ranked([one.run.record for one in entries], [one.name for one in entries]),
        f"{title}; 95 % intervals": [_figures(one) for one in entries],
        "F1 % by class": [_by_class(one) for one in entries],
    }
    if several := [one for one in recipes if len(one.runs) > 1]:
        shown["recipes of n seeds: mean ± standard deviation [95 % interval of the mean, Student's t]"] = [
            _recipe(one) for one in several
        ]
    return shown


def bars(entries: Sequence[Entry], recipes: Sequence[Recipe]) -> tuple[list[str], list[Mapping[str, Any]]]:
    """Names and scores for the picture: each run's, then the means of recipes with several seeds in the same form."""
    names = [f"{one.name}\n{judged_on(one.run)}" for one in entries]
    scores: list[Mapping[str, Any]] = [one.scores for one in entries]
    for one in recipes:
        if len(one.runs) > 1:
            names.append(f"{one.name}\nmean of {len(one.runs)} seeds")
            scores.append({key: mean.interval for key, mean in means(one).items()} | {"classes": _class_means(one)})
    return names, scores


def means(recipe: Recipe) -> dict[str, Mean]:
    """Of each share over two or more seeds; where no face was judged, there is no calibration error."""
    reached: dict[str, list[Any]] = {
        "accuracy": [scores["accuracy"][0] for scores in recipe.scores],
        "macro_f1": [scores["macro_f1"][0] for scores in recipe.scores],
        "ece": [scores["ece"] for scores in recipe.scores],
    }
    return {key: mean_of(shares) for key, shares in reached.items() if None not in shares}


def judged_on(run: Run) -> str:
    """What it was judged on: official, 7 classes."""
    config, source = run.record["config"], run.record["data"]["source"]
    drawn = ", SYNTHETIC" if source.startswith("synthetic") else ""
    left_out = sum((run.record["data"].get("dropped") or {"rows": {}})["rows"].values())
    dropped = f", {left_out:,} rows left out" if left_out else ""
    return f"{config['split']['_target_'].rsplit('.', 1)[-1]}, {len(config['labels'])} classes{drawn}{dropped}"


def _overview(one: Entry) -> Row:
    record = one.run.record
    calibration = record.get("calibration")
    return {
        "run": one.name,
        "test": judged_on(one.run),
        "faces": f"{one.scores['n']:,}",
        "seed": f"{record['config']['seed']}",
        "parameters": f"{record['parameters']:,}",
        "epochs": f"{record['epochs']}",
        "time": duration(record["fit_seconds"]),
        "temperature": f"{calibration['temperature']:.2f}" if calibration else "-",
    }


def _figures(one: Entry) -> Row:
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


def _recipe(one: Recipe) -> Row:
    found = means(one)
    return {
        "recipe": one.name,
        "n": f"{len(one.runs)}",
        "seeds": ", ".join(_seeds(one)),
        "accuracy %": _mean(found["accuracy"]),
        "macro F1 %": _mean(found["macro_f1"]),
        "ECE %": _mean(found["ece"]) if "ece" in found else "-",
    }


def _mean(found: Mean) -> str:
    """54.0 ± 0.7 [52.3, 55.7]."""
    figure, lower, upper, deviation = (100 * value for value in (*found.interval, found.deviation))
    return f"{figure:.1f} ± {deviation:.1f} [{lower:.1f}, {upper:.1f}]"


def _seeds(recipe: Recipe) -> list[str]:
    return [str(run.record["config"]["seed"]) for run in recipe.runs]


def _class_means(recipe: Recipe) -> dict[str, Any]:
    by_seed = [scores["classes"] for scores in recipe.scores]
    return {label: {"f1": [fmean(classes[label]["f1"][0] for classes in by_seed)]} for label in by_seed[0]}


def runs_csv(entries: Sequence[Entry]) -> str:
    """One line a run, every figure with its interval in columns of its own; differences are from the first run."""
    lines = []
    for one in entries:
        record, scores = one.run.record, one.scores
        line: dict[str, Any] = {
            "run": one.name,
            "network": record["config"]["model"]["_target_"].rsplit(".", 1)[-1],
            "seed": record["config"]["seed"],
            "data": record["data"]["source"],
            "test": judged_on(one.run),
            "parameters": record["parameters"],
            "epochs": record["epochs"],
            "fit_seconds": record["fit_seconds"],
            "commit": record["commit"],
            "faces": scores["n"],
            "temperature": (record.get("calibration") or {}).get("temperature"),
            "ece": scores["ece"],
        }
        for key in ("accuracy", "macro_f1", "nll", "brier"):
            line |= _columns(key, scores[key])
        for label, figures in scores["classes"].items():
            line |= _columns(f"f1/{label}", figures["f1"])
        lines.append(line | _differences(one.pair))
    return _csv(lines)


def recipes_csv(recipes: Sequence[Recipe]) -> str:
    """One line a recipe, with means where it has several seeds; differences are from the first recipe of all."""
    lines = []
    for one in recipes:
        line: dict[str, Any] = {"recipe": one.name, "n": len(one.runs), "seeds": " ".join(_seeds(one))}
        for key, found in means(one).items() if len(one.runs) > 1 else ():
            line |= _columns(key, found.interval) | {f"{key}_deviation": found.deviation}
        lines.append(line | _differences(one.test))
    return _csv(lines)


def _differences(test: Paired | Recipes | str) -> dict[str, float | None]:
    if isinstance(test, str):
        return {}
    found: dict[str, float | None] = {}
    for key, difference in (("accuracy", test.accuracy), ("macro_f1", test.macro_f1)):
        found |= _columns(f"{key}_difference", difference[:3]) | {f"{key}_p_holm": difference.p}
    return found


def _columns(key: str, figures: Sequence[float | None]) -> dict[str, float | None]:
    return dict(zip((key, f"{key}_low", f"{key}_high"), figures, strict=True))


def _csv(lines: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for line in lines for key in line))
    table = csv.DictWriter(text := io.StringIO(), columns, lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    return text.getvalue()
