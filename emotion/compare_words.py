"""What the tests of compare found, in sentences: of trained networks, and of the recipes behind them."""

from collections.abc import Sequence

from emotion.matched import Entry, Recipe
from emotion.significance import CHANCE, Difference

NETWORKS = "trained networks, one run each"
RECIPES = "recipes, over their seeds"
TOGETHER = "Each interval is of its test alone; the p-values, corrected for all tests together, decide."


def said(entries: Sequence[Entry], recipes: Sequence[Recipe]) -> dict[str, list[str]]:
    """Sentences under the heading of what they are about; nothing where there is nothing to hold against each other."""
    if len(recipes) < 2:
        return {}
    return {NETWORKS: _of_networks(entries), RECIPES: _of_recipes(recipes)}


def _of_networks(entries: Sequence[Entry]) -> list[str]:
    first, *others = entries
    tests = 2 * sum(not isinstance(one.pair, str) for one in others)
    return [_network(first.name, one, tests) for one in others if one.pair] + (
        [f"These tests are of networks as they were trained: whether the two differ on faces like these. {TOGETHER}"]
        * bool(tests)
    )


def _network(first: str, one: Entry, tests: int) -> str:
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
    sentences = [_recipe(first.name, one, tests) for one in others if min(len(first.runs), len(one.runs)) > 1]
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


def _recipe(first: str, one: Recipe, tests: int) -> str:
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
