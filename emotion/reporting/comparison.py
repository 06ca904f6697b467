"""The tables of compare: runs and recipes for people, and the same with every digit as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from emotion.metrics.statistics import CHANCE, Difference, Mean, Paired, Recipes, mean_of
from emotion.records.paired_comparison import Entry, Recipe
from emotion.records.run_record import Run
from emotion.reporting import ranking
from emotion.reporting.text import duration, loss, share, spread

Row = dict[str, str]
NETWORKS = "trained networks, one run each"
RECIPES = "recipes, over their seeds"
TOGETHER = "Each interval is of its test alone; the p-values, corrected for all tests together, decide."


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
        "accuracy %": spread(one.scores["accuracy"]),
        "macro F1 %": spread(one.scores["macro_f1"]),
        "ECE %": share(one.scores["ece"]),
        "NLL": loss(one.scores["nll"]),
        "Brier": loss(one.scores["brier"]),
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


def said(entries: Sequence[Entry], recipes: Sequence[Recipe]) -> dict[str, list[str]]:
    """Sentences under the heading of what they are about; nothing where there is nothing to hold against each other."""
    if len(recipes) < 2:
        return {}
    return {NETWORKS: _of_networks(entries), RECIPES: _of_recipes(recipes)}


def _of_networks(entries: Sequence[Entry]) -> list[str]:
    first, *others = entries
    tests = 2 * sum(not isinstance(one.pair, str) for one in others)
    return [_network_sentence(first.name, one, tests) for one in others if one.pair] + (
        [f"These tests are of networks as they were trained: whether the two differ on faces like these. {TOGETHER}"]
        * bool(tests)
    )


def _network_sentence(first: str, one: Entry, tests: int) -> str:
    if isinstance(one.pair, str):
        return f"{one.name} is not tested against {first}: {one.pair}."
    pair = one.pair
    return (
        f"{one.name} is {_points(pair.accuracy, 'more', 'less')} accurate than {first} on {pair.faces:,} faces "
        f"({pair.only_second} against {pair.only_first} that it alone has right), McNemar {_p(pair.accuracy)} "
        f"corrected for {tests} tests: {_network_verdict(pair.accuracy)}. "
        f"Its macro F1 is {_points(pair.macro_f1, 'higher', 'lower')}, bootstrap {_p(pair.macro_f1)}: "
        f"{_network_verdict(pair.macro_f1)}."
    )


def _of_recipes(recipes: Sequence[Recipe]) -> list[str]:
    first, *others = recipes
    tests = 2 * sum(not isinstance(one.test, str) for one in others)
    sentences = [_recipe_sentence(first.name, one, tests) for one in others if min(len(first.runs), len(one.runs)) > 1]
    single = [one.name for one in others if len(one.runs) == 1]
    if len(first.runs) == 1:
        sentences.append(
            f"{first.name} has a single seed: only the trained networks can be compared. "
            "Whether recipes differ takes two seeds of each at least, and three or more to be told with any power."
        )
    elif single:
        sentences.append(
            f"Of {', '.join(single)} there is a single seed{' each' if len(single) > 1 else ''}: only the trained "
            "networks can be compared. Whether recipes differ takes two seeds of each at least."
        )
    if tests:
        sentences.append(
            "These tests are of what training gives, from seed to seed, on these very faces: whether training anew "
            f"would show the difference again. {TOGETHER}"
        )
    return sentences


def _recipe_sentence(first: str, one: Recipe, tests: int) -> str:
    if isinstance(one.test, str):
        return f"The recipe {one.name} is not tested against {first}: {one.test}."
    test = one.test
    return (
        f"The recipe {one.name} (n = {test.second} seeds) is in the mean {_points(test.accuracy, 'more', 'less')} "
        f"accurate than {first} (n = {test.first}) on {test.faces:,} faces, Welch {_p(test.accuracy)} "
        f"corrected for {tests} tests: {_recipe_verdict(test.accuracy)}. "
        f"Its macro F1 is {_points(test.macro_f1, 'higher', 'lower')}, Welch {_p(test.macro_f1)}: "
        f"{_recipe_verdict(test.macro_f1)}."
    )


def _points(difference: Difference, more: str, less: str) -> str:
    """`0.25 points [-0.60, 1.10] more`, or the same turned round to less."""
    sign = -1 if difference.figure < 0 else 1
    figure, lower, upper = (100 * sign * value for value in difference[:3])
    lower, upper = min(lower, upper), max(lower, upper)
    return f"{figure:.2f} points [{lower:.2f}, {upper:.2f}] {more if sign > 0 else less}"


def _p(difference: Difference) -> str:
    return "p < 0.0001" if difference.p < 1e-4 else f"p = {difference.p:.2g}"


def _network_verdict(difference: Difference) -> str:
    return "a difference" if difference.p < CHANCE else "not a difference"


def _recipe_verdict(difference: Difference) -> str:
    """Few seeds that show no difference show no equality either."""
    return "the recipes differ" if difference.p < CHANCE else "no difference is shown"
