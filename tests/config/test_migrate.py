import json
from pathlib import Path

import pytest

from emotion.checkpoints.locate import zoo
from emotion.config.instantiate import check_targets, targets
from emotion.config.migrate import TARGETS, migrate
from tests.conftest import ROOT

STORED = [*sorted((ROOT / "outputs/records").rglob("record.json")), *(p.with_suffix(".json") for p in zoo().values())]


@pytest.mark.parametrize("path", STORED, ids=[str(path.relative_to(ROOT)) for path in STORED])
def test_every_stored_target_resolves(path: Path) -> None:
    content = json.loads(path.read_text())
    assert list(targets(content))
    migrated = migrate(content)
    check_targets(migrated)
    assert migrate(migrated) == migrated


def test_former_targets_are_replaced_at_any_depth() -> None:
    for former, current in TARGETS.items():
        rest = "x" if former.endswith(".") else ""
        assert migrate({"a": [{"_target_": former + rest}]}) == {"a": [{"_target_": current + rest}]}


def test_names_that_users_choose_are_left_unchanged() -> None:
    classes = {"middle": {"n": 1}, "clean": {"n": 2}}
    plugin = {"_target_": "mine.Net", "drop": 0.1, "options": [{"every": 2}]}
    for content in ({"labels": {"low": ["a"], "middle": ["b"]}}, {"classes": classes}, {"model": plugin}):
        assert migrate({"config": content}) == {"config": content}


def test_arguments_of_the_package_are_renamed_below_names_that_users_choose() -> None:
    former = {"_target_": "emotion.data.splits.official", "drop": None}
    current = {"_target_": "emotion.data.splits.official", "exclude": None}
    for parent in ({"_target_": "mine.Net", "split": former}, {"callbacks": {"clean": former}}):
        assert str(migrate(parent)) == str(parent).replace(str(former), str(current))
