"""Which runs are meant: by name, state, tags, figures and settings."""

import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from emotion.errors import UserError
from emotion.io.atomic import write_text
from emotion.records.run_folder import STATES, Run, folder_size

TAGS = "tags.json"
FIGURES: dict[str, Callable[[Run], float]] = {
    "val": lambda run: run.record.best.get("score", math.nan),
    "test": lambda run: _test(run),
    "epochs": lambda run: run.record.epochs or math.nan,
    "minutes": lambda run: (run.record.fit_seconds or math.nan) / 60,
    "mb": lambda run: folder_size(run.folder) / 1e6,
}
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "!=": operator.ne, "<=": operator.le, ">=": operator.ge, "=": operator.eq, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
CONDITION = re.compile(r"\s*([\w./]+)\s*(!=|<=|>=|=|<|>)\s*(.+?)\s*")


class Condition(NamedTuple):
    """A figure or a setting, held against a value."""

    key: str
    sign: str
    value: Any

    def holds(self, run: Run) -> bool:
        """Whether it does; never for what a run does not have."""
        if self.key in FIGURES:
            figure = FIGURES[self.key](run)
            found: Any = figure if math.isfinite(figure) else None
        else:
            found = OmegaConf.select(OmegaConf.create(run.record.config), self.key)
        if isinstance(found, str) and self.sign in ("=", "!="):
            return fnmatchcase(found, str(self.value)) == (self.sign == "=")
        try:
            return found is not None and bool(OPERATORS[self.sign](found, self.value))
        except TypeError:  # a word is neither more nor less than a number
            return False


def conditions(text: str | None) -> list[Condition]:
    """Of `val>0.6 and optimizer.lr<0.001`.

    Raises:
        UserError: a part that is no condition.
    """
    parts = re.split(r"\s+and\s+", text) if text else []
    found = [(part, CONDITION.fullmatch(part)) for part in parts]
    if wrong := [part for part, match in found if not match]:
        raise UserError(
            f"where: found {wrong[0]!r}; expected NAME and a value with {' '.join(OPERATORS)} between them, joined by "
            f"and; NAME is {', '.join(FIGURES)} or a setting such as optimizer.lr."
        )
    return [Condition(match[1], match[2], _value(match[3])) for _, match in found if match]


def matching(runs: Sequence[Run], asked: Mapping[str, Any]) -> list[Run]:
    """The runs that `name`, `state`, `tagged` and `where` leave.

    Raises:
        UserError: there is no such state, or a condition is none.
    """
    states, tagged, held = words(asked["state"]), set(words(asked["tagged"])), conditions(asked["where"])
    if unknown := set(states) - set(STATES):
        raise UserError(f"state={', '.join(sorted(unknown))}: expected {', '.join(STATES)}.")
    return [
        run
        for run in runs
        if (not states or run.state in states)
        and fnmatchcase(run.record.name, str(asked["name"] or "*"))
        and tagged <= set(tags(run.folder))
        and all(condition.holds(run) for condition in held)
    ]


def tags(folder: Path) -> list[str]:
    """That people have put on a run.

    Raises:
        UserError: the file that holds them is none of ours.
    """
    path = folder / TAGS
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    except ValueError as error:
        raise UserError(f"{path} holds no tags: {error}. Remove it.") from error
    return [str(tag) for tag in found]


def retag(folder: Path, add: Sequence[str], drop: Sequence[str]) -> None:
    """Put tags on a run, take others off."""
    now = dict.fromkeys([*tags(folder), *add])
    write_text(folder / TAGS, json.dumps([tag for tag in now if tag not in drop]) + "\n")


def words(value: str | Sequence[str] | None) -> list[str]:
    """One word or several."""
    if value is None:
        return []
    return [str(value)] if isinstance(value, str | int | float) else [str(one) for one in value]


def _test(run: Run) -> float:
    scores = run.record.test_scores
    return float(scores["none"]["all"]["accuracy"][0]) if scores else math.nan


def _value(text: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except ValueError:
        return text
