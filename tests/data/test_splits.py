"""Splits and exclusions; tests/promises/test_properties.py has the properties of splits for any rows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emotion.data.cache import prepare
from emotion.data.faces import MIXED, PRIVATE_TEST, PUBLIC_TEST, TEST, TRAINING, USAGES, Component, Faces
from emotion.data.labels import NO_CLASS
from emotion.data.splits import (
    NO_EXCLUSIONS,
    Split,
    kfold,
    official,
    random,
    read_exclusions,
    split_with_exclusions,
    stratified,
    swapped_test,
)
from emotion.errors import UserError

rng = np.random.default_rng(0)
USAGE = rng.choice(3, 2000, p=[0.8, 0.1, 0.1]).astype(np.uint8)
LABELS = rng.choice([NO_CLASS, 0, 1, 2], 2000, p=[0.1, 0.6, 0.25, 0.05])
FACES = Faces(
    np.empty((2000, 0, 0), np.uint8), np.zeros(2000, np.uint8), USAGE, np.empty(2000, "S1"), ("sad",), "", "x.csv"
)
OFFICIAL = {"_target_": "emotion.data.splits.official"}
STRATIFIED = {"_target_": "emotion.data.splits.stratified", "fraction": 0.2, "seed": 0}

sampled = pytest.mark.parametrize("split", [stratified, random])


def counts(split: Callable[..., Split]) -> list[int]:
    """The numbers of training rows of which a share each is sampled: by class, or together."""
    labels = LABELS[labeled(TRAINING)]
    return np.bincount(labels).tolist() if split is stratified else [len(labels)]


def labeled(*usages: int) -> NDArray[np.int64]:
    return np.flatnonzero(np.isin(USAGE, usages) & (LABELS != NO_CLASS))


@sampled
def test_sampled_rows_depend_on_the_seed_alone(split: Callable[..., Split]) -> None:
    first, same, other = (split(USAGE, LABELS, 0.2, seed=seed).val for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert set(first) != set(other)
    assert len(first) == sum(int(0.2 * n) for n in counts(split))
    middle = np.searchsorted(labeled(TRAINING), first).mean() / len(labeled(TRAINING))
    assert abs(middle - 0.5) < 0.06  # from anywhere in the file


@sampled
def test_a_share_is_not_rounded_down_to_the_row_below(split: Callable[..., Split]) -> None:
    """0.29 * 100 is 28.999999999999996 in floating point."""
    usage, labels = np.full(100, TRAINING, np.uint8), np.zeros(100, np.int64)
    assert len(split(usage, labels, 0.29, seed=0).val) == 29


def test_the_official_split_tests_on_a_single_test_set() -> None:
    split = official(np.array([TRAINING, TEST] * 1000, np.uint8), LABELS)
    assert (len(split.val), set(split.test.tolist())) == (0, set(np.flatnonzero(LABELS[1::2] != NO_CLASS) * 2 + 1))


def test_every_row_is_tested_in_one_fold_and_classes_are_even() -> None:
    splits = [kfold(USAGE, LABELS, folds=5, fold=fold, seed=0) for fold in range(5)]
    rows = np.flatnonzero(LABELS != NO_CLASS)
    np.testing.assert_array_equal(np.sort(np.concatenate([split.test for split in splits])), rows)
    for split, following in zip(splits, [*splits[1:], splits[0]], strict=True):
        np.testing.assert_array_equal(np.sort(np.concatenate(split)), rows)
        np.testing.assert_array_equal(split.val, following.test)
    for label in range(3):
        counts = [np.count_nonzero(LABELS[split.test] == label) for split in splits]
        assert max(counts) - min(counts) <= 1
    sizes = [len(split.test) for split in splits]
    assert max(sizes) - min(sizes) <= 2
    assert set(splits[0].test) != set(kfold(USAGE, LABELS, folds=5, fold=0, seed=1).test)


@pytest.mark.parametrize(("folds", "fold"), [(2, 0), (5, 5), (5, -1), (5, True), ("5", 0), (5.0, 1)])
def test_other_folds_are_refused(folds: object, fold: object) -> None:
    with pytest.raises(UserError, match="expected 3 or more folds"):
        kfold(USAGE, LABELS, folds=folds, fold=fold, seed=0)  # type: ignore[arg-type]


def test_the_rows_of_each_class_can_be_limited() -> None:
    split, _ = split_with_exclusions({**OFFICIAL, "max_per_class": 4}, FACES, LABELS)
    for part, whole in zip(split, official(USAGE, LABELS), strict=True):
        assert np.bincount(LABELS[part]).tolist() == [4, 4, 4]
        assert set(part) <= set(whole)


@pytest.mark.parametrize("split", [official, swapped_test, stratified, random, kfold])
def test_no_split_contains_a_mixed_row(split: Callable[..., Split]) -> None:
    usage = np.array([TRAINING, PUBLIC_TEST, PRIVATE_TEST, MIXED] * 30, np.uint8)
    arguments: dict[str, float] = {"fraction": 0.2, "seed": 0} if split in (stratified, random) else {}
    arguments |= {"folds": 3, "fold": 0, "seed": 0} if split is kfold else {}
    rows = np.concatenate(split(usage, np.zeros(120, np.int64), **arguments))
    assert USAGES[MIXED] == "Mixed"
    assert MIXED not in usage[rows]
    assert len(rows) == 90


def listed(tmp_path: Path, *lines: str) -> str:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
    path.write_text("\n".join(["row,usage,issue", *lines]) + "\n")
    return str(path)


def test_excluded_rows_leave_only_the_given_parts(tmp_path: Path) -> None:
    complete = stratified(USAGE, LABELS, 0.2, seed=0)
    rows = [int(part[3]) for part in complete]
    file = listed(tmp_path, *(f"{row},{USAGES[USAGE[row]]},blank" for row in rows))
    config = {**STRATIFIED, "exclude": file}
    split, _ = split_with_exclusions(config, FACES, LABELS)
    assert set(complete.train) - set(split.train) == {rows[0]}
    assert (len(split.val), len(split.test)) == (len(complete.val), len(complete.test))
    split, _ = split_with_exclusions(config | {"exclude_from": ["val", "test"]}, FACES, LABELS)
    np.testing.assert_array_equal(split.train, complete.train)
    assert (set(complete.val) - set(split.val), set(complete.test) - set(split.test)) == ({rows[1]}, {rows[2]})


def test_only_rows_with_the_given_issues_are_excluded(tmp_path: Path) -> None:
    leak, blank = labeled(TRAINING)[:2]
    file = listed(tmp_path, f"{leak},Training,leak", f"{blank},Training,blank")
    for issues, excluded in ((["leak"], {leak}), ("duplicate", set()), (None, {leak, blank})):
        split, record = split_with_exclusions({**OFFICIAL, "exclude": file, "exclude_issues": issues}, FACES, LABELS)
        assert set(labeled(TRAINING)) - set(split.train) == excluded
        assert record is not None
        assert record["rows"] == {"train": len(excluded), "val": 0, "test": 0}
    assert split_with_exclusions({**OFFICIAL, "exclude": None}, FACES, LABELS)[1] is None


def test_lists_that_do_not_match_are_refused(tmp_path: Path) -> None:
    row = labeled(TRAINING)[0]
    (tmp_path / "bare.csv").write_text(f"row\n \n{row}\n,\n,,\n")
    (tmp_path / "other.csv").write_text("number\n1\n")
    bare = str(tmp_path / "bare.csv")
    assert row not in split_with_exclusions({**OFFICIAL, "exclude": bare}, FACES, LABELS)[0].train
    for settings, message in (
        ((str(tmp_path / "none.csv"),), "cannot be read: No such file"),
        ((str(tmp_path / "other.csv"),), "is not a list of rows"),
        ((bare, ["leak"]), "has no column issue"),
        ((bare, None, ["training"]), r"exclude_from=\['training'\]: expected one or more of train, val, test"),
        ((None, ["leak"]), "names no file"),
        ((listed(tmp_path, "2000,Training,leak"),), "lists row 2000, but x.csv has rows 0 to 1,999"),
        ((listed(tmp_path, f"{row},PublicTest,leak"),), "as PublicTest, but in x.csv it is Training"),
        ((listed(tmp_path, f"{row},Training,leak"), ["leek"]), "lists no leek; expected some of leak"),
    ):
        with pytest.raises(UserError, match=message):
            split_with_exclusions(OFFICIAL | dict(zip(NO_EXCLUSIONS, settings, strict=False)), FACES, LABELS)


def test_rows_listed_with_other_labels_are_refused(tmp_path: Path, fer_csv: Path) -> None:
    faces = prepare({"_target_": "emotion.data.readers.fer2013.read_csv", "path": str(fer_csv)}, "cache")
    label, other = faces.classes[faces.labels[3]], faces.classes[faces.labels[3] - 1]
    file = tmp_path / "rows.csv"
    file.write_text(f"row,usage,label,issue\n3,Training,{label},leak\n", encoding="utf-8-sig")  # as Excel saves it
    assert read_exclusions(str(file), None, faces).tolist() == [3]
    file.write_text(f"row,usage,label,issue\n3,Training,{other},leak\n")
    with pytest.raises(UserError, match=f"lists row 3 as {other}, but in .*fer2013.csv it is {label}"):
        read_exclusions(str(file), None, faces)
    relabeled = replace(faces, components=(Component("fer2013.csv", "digest"), Component("votes", "digest")))
    assert read_exclusions(str(file), None, relabeled).tolist() == [3]
