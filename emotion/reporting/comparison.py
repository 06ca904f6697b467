"""Comparison of runs and recipes: tables, CSV, the data of a figure, and a summary in sentences."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from emotion.data.names import first_names
from emotion.errors import UserError, counted
from emotion.metrics.statistics import ALPHA, Difference, PairedComparison, RecipeComparison, SampleMean, sample_mean
from emotion.records import paired_comparison
from emotion.records.paired_comparison import Recipe, RunRow
from emotion.records.recipe import group_by_folds, group_by_recipe
from emotion.records.run_folder import Run, display_names, group_names
from emotion.reporting import ranking
from emotion.reporting.tables import Row, Table, csv_table
from emotion.reporting.text import format_duration, format_interval, format_loss, format_percent, short_source

NETWORKS, RECIPES = "trained networks, one run each", "recipes, over their seeds"
DIFFERENCES = (
    "Differences are in percentage points, each with a 95 % interval for its test alone; p-values are corrected for "
    "all tests here (Holm)."
)
CAPTIONS = {
    "folds": "Cross-validation scores, pooled over folds: {faces}, each scored by the run that was not trained on it. "
    "Brackets are 95 % intervals over faces.",
    "runs": "The compared runs: split and classes, test faces, seed, parameters of the network, epochs and time of "
    "training, and the temperature that calibrates its probabilities.",
    "ranking": "Runs ranked by the monitored score of their best epoch, which is optimistic for the best of many, and "
    "their test accuracy, with 95 % intervals over faces.",
    "scores": "Test scores of each run: accuracy, macro F1, expected calibration error (ECE), negative log-likelihood "
    "(NLL) and Brier score on {faces}, with 95 % intervals over faces.",
    "f1": "Test F1 score in % of each run by class, on {faces}.",
    "recipes": "Test scores of each training recipe on {faces}: mean over n seeds ± standard deviation, with the 95 % "
    "interval of the mean (Student's t).",
    "networks": "Trained networks compared with {first} on {faces} that both were tested on: McNemar's exact test of "
    f"accuracy, paired bootstrap of macro F1. {DIFFERENCES}",
    "seeds": "Training recipes compared with {first} on {faces} that both were tested on: Welch's t-test of the "
    f"accuracy and macro F1 of their seeds. {DIFFERENCES}",
}
"""Of LaTeX tables, by label; they explain a table without the text around it."""
CORRECTION = "Each interval is for its test alone; the p-values are corrected for all tests together."


def compare_runs(runs: Sequence[Run], tta: str, rows: str) -> tuple[list[RunRow], list[Recipe]]:
    """Compare the first run of each recipe with the first of all, and each recipe with the first.

    `rows` is all or deduplicated.

    Raises:
        UserError: A run has no scores with this TTA, or its predictions are missing or damaged.
    """
    names = dict(zip(map(id, runs), display_names(runs), strict=True))
    scores = {id(run): _test_scores(run, tta, rows) for run in runs}
    names_of_classes = first_names(found["classes"] for found in scores.values())
    for found in scores.values():
        found["classes"] = {names_of_classes[name]: values for name, values in found["classes"].items()}
    groups = group_by_recipe(runs)
    first, *others = groups
    compared = [group[0] for group in others]
    pairs = dict(zip(map(id, compared), paired_comparison.pairs(first[0], compared, tta, rows), strict=True))
    tests = ["", *paired_comparison.recipes(first, others, tta, rows)]
    recipe_names = group_names(groups, [group[0].record.name for group in groups], names)
    return (
        [RunRow(names[id(run)], run, scores[id(run)], pairs.get(id(run), "")) for run in runs],
        [
            Recipe(name, group, [scores[id(run)] for run in group], test)
            for name, group, test in zip(recipe_names, groups, tests, strict=True)
        ],
    )


def tables(runs: Sequence[RunRow], recipes: Sequence[Recipe], tta: str, rows: str) -> list[Table]:
    """Return the tables of runs, of their ranking and scores, and of the means of recipes with several seeds."""
    f1 = [
        {"run": run.name}
        | {name: format_interval(found["f1"]).split()[0] for name, found in run.scores["classes"].items()}
        for run in runs
    ]
    made = [
        _table("runs", "runs", [_overview(run) for run in runs]),
        *_ranking(runs),
        _table("scores", f"test, tta={tta}, rows={rows}; 95 % intervals", [_scores(run) for run in runs], tta, rows),
        _table("f1", "F1 % by class", f1, tta, rows),
    ]
    if several := [recipe for recipe in recipes if _has_seeds(recipe)]:
        title = "recipes of n seeds: mean ± standard deviation [95 % interval of the mean, Student's t]"
        made.append(_table("recipes", title, [_recipe_means(recipe) for recipe in several], tta, rows))
    return made


def test_tables(runs: Sequence[RunRow], recipes: Sequence[Recipe], tta: str, rows: str) -> list[Table]:
    """Return the tests of `summary` as tables: of trained networks, and of recipes over their seeds."""
    tested = {
        "networks": [_test_row(run.name, run.pair) for run in runs if isinstance(run.pair, PairedComparison)],
        "seeds": [_test_row(one.name, one.test) for one in recipes if isinstance(one.test, RecipeComparison)],
    }
    firsts = {"networks": runs[0].name, "seeds": f"{recipes[0].name} ({len(recipes[0].runs)} seeds)"}
    return [_table(name, name, found, tta, rows, firsts[name]) for name, found in tested.items() if found]


def fold_tables(runs: Sequence[Run], tta: str, rows: str) -> list[Table]:
    """Return a table of the scores over the faces of all folds; none without several folds.

    Raises:
        UserError: The predictions of a run are missing or damaged.
    """
    table, groups = [], group_by_folds(runs)
    plain = [folds[0].record.title for folds in groups]
    names = group_names(groups, plain, dict(zip(map(id, runs), display_names(runs), strict=True)))
    for name, folds in zip(names, groups, strict=True):
        scores, split = paired_comparison.pool(folds, tta, rows), folds[0].record.config["split"]
        table.append(
            {
                "run": name,
                "folds": f"{len(folds)} of {split['folds']}",
                "faces": f"{scores['n']:,}",
                "accuracy %": format_interval(scores["accuracy"]),
                "macro F1 %": format_interval(scores["macro_f1"]),
            }
        )
    return [_table("folds", "predictions pooled over folds; 95 % intervals", table, tta, rows)] if table else []


def bars(runs: Sequence[RunRow], recipes: Sequence[Recipe]) -> tuple[list[str], list[Mapping[str, Any]]]:
    """Return names and scores for the figure: of each run, then the means of recipes with several seeds."""
    names = [f"{run.name}\n{_test_set(run.run)}" for run in runs]
    scores: list[Mapping[str, Any]] = [run.scores for run in runs]
    for recipe in recipes:
        if _has_seeds(recipe):
            classes = {
                name: {"f1": [fmean(scores["classes"][name]["f1"][0] for scores in recipe.scores)]}
                for name in recipe.scores[0]["classes"]
            }
            names.append(f"{recipe.name}\nmean of {len(recipe.runs)} seeds")
            scores.append({key: mean.interval() for key, mean in _means(recipe).items()} | {"classes": classes})
    return names, scores


def runs_csv(runs: Sequence[RunRow]) -> str:
    """Return a CSV line for each run, with separate columns for bounds; differences are to the first run."""
    lines = []
    for run in runs:
        record, scores = run.run.record, run.scores
        line: dict[str, Any] = {
            "run": run.name,
            "network": record.network,
            "seed": record.seed,
            "data": record.data["source"],
            "test": _test_set(run.run),
            "parameters": record.parameters,
            "epochs": record.epochs,
            "fit_seconds": record.fit_seconds,
            "commit": record.commit,
            "faces": scores["n"],
            "temperature": (record.calibration or {}).get("temperature"),
            "ece": scores["ece"],
        }
        for key in ("accuracy", "macro_f1", "nll", "brier"):
            line |= _interval_columns(key, scores[key])
        for name, class_scores in scores["classes"].items():
            line |= _interval_columns(f"f1/{name}", class_scores["f1"])
        lines.append(line | _difference_columns(run.pair))
    return csv_table(lines)


def recipes_csv(recipes: Sequence[Recipe]) -> str:
    """Return a CSV line for each recipe, with means if it has several seeds; differences are to the first recipe."""
    lines = []
    for recipe in recipes:
        line: dict[str, Any] = {"recipe": recipe.name, "n": len(recipe.runs), "seeds": " ".join(_seeds(recipe))}
        for key, mean in _means(recipe).items() if _has_seeds(recipe) else ():
            line |= _interval_columns(key, mean.interval()) | {f"{key}_std": mean.std}
        lines.append(line | _difference_columns(recipe.test))
    return csv_table(lines)


def summary(runs: Sequence[RunRow], recipes: Sequence[Recipe]) -> dict[str, list[str]]:
    """Return sentences about the tests by heading; empty for a single run."""
    first, *others = recipes
    if not others:
        alone = f"{first.name}: {len(first.runs)} seeds of one recipe differ by chance and are not tested."
        return {RECIPES: [f"{alone} Their mean and spread are in the table."]} if _has_seeds(first) else {}
    pairs = {run.name: run.pair for run in runs[1:] if run.pair}
    tests = {f"The recipe {recipe.name}": recipe.test for recipe in others if _has_seeds(first) and _has_seeds(recipe)}
    networks = _sentences(
        runs[0].name, pairs, "These tests compare networks as trained: whether the two differ on faces like these."
    )
    over_seeds = _sentences(
        first.name,
        tests,
        "These tests compare what training gives from seed to seed on these faces: whether training again would show "
        "the difference again.",
    )
    if single := [recipe.name for recipe in (others if _has_seeds(first) else [first]) if not _has_seeds(recipe)]:
        over_seeds.append(
            f"{', '.join(single)}: a single seed, so only the trained networks can be compared. Comparing recipes "
            "takes at least two seeds of each, and three or more for any power."
        )
    return {NETWORKS: networks, RECIPES: over_seeds}


def _sentences(
    first: str, tests: Mapping[str, PairedComparison | RecipeComparison | str], explanation: str
) -> list[str]:
    """Return a sentence for each test against `first`, by the name of the other, and the explanation of tests."""
    count = 2 * sum(not isinstance(test, str) for test in tests.values())
    sentences = []
    for name, test in tests.items():
        if isinstance(test, str):
            sentences.append(f"{name} is not tested against {first}: {test}.")
            continue
        if isinstance(test, PairedComparison):
            details = f"it alone is correct on {test.only_second}, {first} alone on {test.only_first}"
            accuracy_test, f1_test = "McNemar", "bootstrap"
        else:
            details = f"means of {test.second} and {test.first} seeds"
            accuracy_test = f1_test = "Welch"
        sentences.append(
            f"{name} is {_points(test.accuracy, 'more accurate than', 'less accurate than', 'as accurate as')} {first} "
            f"on {test.faces:,} faces ({details}), {accuracy_test} {_p_value(test.accuracy)} corrected for {count} "
            f"tests: {_verdict(test.accuracy)}. Its macro F1 is {_points(test.macro_f1, 'higher', 'lower', 'equal')}, "
            f"{f1_test} {_p_value(test.macro_f1)}: {_verdict(test.macro_f1)}."
        )
    if count:
        sentences.append(f"{explanation} {CORRECTION}")
    return sentences


def _table(name: str, title: str, rows: list[Row], tta: str = "none", subset: str = "all", first: str = "") -> Table:
    """Return a table with the caption of its name."""
    faces = "all test faces" if subset == "all" else "the test faces whose pixels are not in the training set"
    faces += " without test-time augmentation" if tta == "none" else f" with test-time augmentation ({tta})"
    return Table(title, rows, name, CAPTIONS[name].format(faces=faces, first=first))


def _ranking(runs: Sequence[RunRow]) -> list[Table]:
    ranked = ranking.ranking_tables([run.run.record for run in runs], [run.name for run in runs])
    found = []
    several = {title: rows for title, rows in ranked.items() if len(rows) > 1 or len(ranked) == 1}
    for number, (title, rows) in enumerate(several.items(), start=1):
        name, caption = "ranking", CAPTIONS["ranking"]
        if len(ranked) > 1:
            name += f"-{number}"
            caption += f" Ranked among the runs of {short_source(title.removeprefix(f'{ranking.TITLE}: '))}."
        found.append(Table(title, rows, name, caption, left=2))
    return found


def _test_row(name: str, test: PairedComparison | RecipeComparison) -> Row:
    row = {"compared": name, "faces": f"{test.faces:,}"}
    if isinstance(test, PairedComparison):
        row |= {"only this correct": f"{test.only_second:,}", "only the first correct": f"{test.only_first:,}"}
    else:
        row |= {"seeds": str(test.second)}
    for key, difference in (("accuracy", test.accuracy), ("macro F1", test.macro_f1)):
        value, lower, upper = (f"{100 * number:+z.2f}".replace("-", "\N{MINUS SIGN}") for number in difference[:3])
        row |= {
            f"{key} difference": f"{value} [{lower}, {upper}]",
            f"{key} p": _p_value(difference).removeprefix("p ").removeprefix("= "),
        }
    return row


def _has_seeds(recipe: Recipe) -> bool:
    return len(recipe.runs) > 1


def _points(difference: Difference, more: str, less: str, equal: str) -> str:
    """Return `0.25 points [-0.60, 1.10] more`, with the sign turned for `less`, or `equal`."""
    if difference.value == 0:
        return equal
    sign = -1 if difference.value < 0 else 1
    value, *bounds = (100 * sign * number for number in difference[:3])
    return f"{value:.2f} points [{min(bounds):.2f}, {max(bounds):.2f}] {more if sign > 0 else less}"


def _p_value(difference: Difference) -> str:
    return "p < 0.0001" if difference.p < 1e-4 else f"p = {difference.p:.2g}"


def _verdict(difference: Difference) -> str:
    return "a difference" if difference.p < ALPHA else "no difference shown"


def _overview(run: RunRow) -> Row:
    record = run.run.record
    return {
        "run": run.name,
        "test": _test_set(run.run),
        "faces": f"{run.scores['n']:,}",
        "seed": f"{record.seed}",
        "parameters": f"{record.parameters:,}",
        "epochs": f"{record.epochs}",
        "time": format_duration(record.fit_seconds),
        "temperature": f"{record.calibration['temperature']:.2f}" if record.calibration else "-",
    }


def _scores(run: RunRow) -> Row:
    return {
        "run": run.name,
        "accuracy %": format_interval(run.scores["accuracy"]),
        "macro F1 %": format_interval(run.scores["macro_f1"]),
        "ECE %": format_percent(run.scores["ece"]),
        "NLL": format_loss(run.scores["nll"]),
        "Brier": format_loss(run.scores["brier"]),
    }


def _recipe_means(recipe: Recipe) -> Row:
    row = {"recipe": recipe.name, "n": f"{len(recipe.runs)}", "seeds": ", ".join(_seeds(recipe))}
    titles, means = {"accuracy": "accuracy %", "macro_f1": "macro F1 %", "ece": "ECE %"}, _means(recipe)
    for key, title in titles.items():
        row[title] = "-"
        if key in means and recipe.scores[0]["n"]:
            mean, *bounds = (100 * value for value in means[key].interval() if value is not None)
            interval = " [{:.1f}, {:.1f}]".format(*bounds) if bounds else ""
            row[title] = f"{mean:.1f} ± {100 * means[key].std:.1f}{interval}"
    return row


def _means(recipe: Recipe) -> dict[str, SampleMean]:
    """Return the means over two or more seeds; without ece if no face was evaluated."""
    values: dict[str, list[Any]] = {
        "accuracy": [scores["accuracy"][0] for scores in recipe.scores],
        "macro_f1": [scores["macro_f1"][0] for scores in recipe.scores],
        "ece": [scores["ece"] for scores in recipe.scores],
    }
    return {key: sample_mean(shares) for key, shares in values.items() if None not in shares}


def _seeds(recipe: Recipe) -> list[str]:
    return [str(run.record.seed) for run in recipe.runs]


def _test_set(run: Run) -> str:
    """Return a description such as `official, 7 classes`."""
    record = run.record
    synthetic = ", SYNTHETIC" if record.is_synthetic else ""
    excluded = f", {counted(record.num_excluded, 'row')} excluded" if record.num_excluded else ""
    return f"{record.split_name}, {len(record.labels)} classes{synthetic}{excluded}"


def _test_scores(run: Run, tta: str, rows: str) -> dict[str, Any]:
    by_tta = run.record.test_scores
    if tta not in by_tta:
        raise UserError(f"{run.folder} has test scores with tta={', '.join(by_tta)}; expected tta={tta}.")
    scores: dict[str, Any] = dict(by_tta[tta][rows])
    if missing := {"n", "classes", "accuracy", "macro_f1", "ece", "nll", "brier"} - set(scores):
        raise UserError(f"{run.folder}: its record has no {', '.join(sorted(missing))}; another version wrote it.")
    return scores


def _difference_columns(test: PairedComparison | RecipeComparison | str) -> dict[str, float | None]:
    columns: dict[str, float | None] = {}
    if not isinstance(test, str):
        for key, difference in (("accuracy", test.accuracy), ("macro_f1", test.macro_f1)):
            columns |= _interval_columns(f"{key}_difference", difference[:3]) | {f"{key}_p_holm": difference.p}
    return columns


def _interval_columns(key: str, interval: Sequence[float | None]) -> dict[str, float | None]:
    return dict(zip((key, f"{key}_low", f"{key}_high"), interval, strict=True))
