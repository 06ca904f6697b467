from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emotion.data.faces import PRIVATE_TEST, PUBLIC_TEST, TEST, TRAINING, USAGES
from emotion.data.labels import LEFT_OUT
from emotion.data.splits import NOTHING_DROPPED, Split, official, parted, random, stratified, swapped
from emotion.errors import UserError

rng = np.random.default_rng(0)
USAGE = rng.choice(3, 2000, p=[0.8, 0.1, 0.1]).astype(np.uint8)
LABELS = rng.choice([LEFT_OUT, 0, 1, 2], 2000, p=[0.1, 0.6, 0.25, 0.05])


def of(*usages: int) -> NDArray[np.int64]:
    return np.flatnonzero(np.isin(USAGE, usages) & (LABELS != LEFT_OUT))


def test_official_is_training_public_private() -> None:
    for part, usage in zip(official(USAGE, LABELS), (TRAINING, PUBLIC_TEST, PRIVATE_TEST), strict=True):
        np.testing.assert_array_equal(part, of(usage))


def test_swapped_exchanges_the_two_test_sets() -> None:
    one, other = official(USAGE, LABELS), swapped(USAGE, LABELS)
    np.testing.assert_array_equal(one.val, other.test)
    np.testing.assert_array_equal(one.test, other.val)


def test_stratified_takes_the_floor_of_each_class() -> None:
    split = stratified(USAGE, LABELS, 0.15, seed=0)
    counts = np.bincount(LABELS[of(TRAINING)])
    assert np.bincount(LABELS[split.val]).tolist() == [int(0.15 * n) for n in counts]


def test_random_takes_the_floor_of_all() -> None:
    split = random(USAGE, LABELS, 0.2, seed=0)
    assert len(split.val) == int(0.2 * len(of(TRAINING)))


@pytest.mark.parametrize("split", [stratified, random])
def test_drawn_splits_part_training_and_merge_the_tests(split: object) -> None:
    parts: Split = split(USAGE, LABELS, 0.2, seed=0)  # type: ignore[operator]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts[:2])), of(TRAINING))
    np.testing.assert_array_equal(parts.test, of(PUBLIC_TEST, PRIVATE_TEST))


@pytest.mark.parametrize("split", [stratified, random])
def test_drawn_rows_depend_on_the_seed_alone(split: object) -> None:
    one, same, other = (split(USAGE, LABELS, 0.2, seed=s).val for s in (1, 1, 2))  # type: ignore[operator]
    np.testing.assert_array_equal(one, same)
    assert set(one) != set(other)


@pytest.mark.parametrize("split", [official, swapped])
def test_one_merged_test_set_needs_a_drawn_split(split: object) -> None:
    with pytest.raises(UserError, match=r"needs PublicTest and PrivateTest.*split=stratified_15"):
        split(np.full(2000, TEST, np.uint8), LABELS)  # type: ignore[operator]


OFFICIAL = {"_target_": "emotion.data.splits.official"}


def listed(tmp_path: Path, *lines: str) -> str:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
    path.write_text("\n".join(["row,usage,fault", *lines]) + "\n")
    return str(path)


def test_rows_of_a_list_leave_the_parts_that_are_named_and_no_others(tmp_path: Path) -> None:
    whole = stratified(USAGE, LABELS, 0.2, seed=0)
    some = [int(part[3]) for part in whole]
    names = ("Training", "Training", USAGES[USAGE[some[2]]])
    file = listed(tmp_path, *(f"{row},{usage},blank" for row, usage in zip(some, names, strict=True)))
    drawn = {"_target_": "emotion.data.splits.stratified", "fraction": 0.2, "seed": 0, "drop": file}
    kept, _ = parted(drawn, USAGE, LABELS)
    assert (set(whole.train) - set(kept.train), len(kept.val), len(kept.test)) == (
        {some[0]},
        len(whole.val),
        len(whole.test),
    )
    kept, _ = parted(drawn | {"drop_from": ["val", "test"]}, USAGE, LABELS)
    np.testing.assert_array_equal(kept.train, whole.train)
    assert (set(whole.val) - set(kept.val), set(whole.test) - set(kept.test)) == ({some[1]}, {some[2]})


def test_only_rows_of_the_faults_that_are_named_are_left_out(tmp_path: Path) -> None:
    one, other = of(TRAINING)[:2]
    file = listed(tmp_path, f"{one},Training,leak", f"{other},Training,blank")
    for faults, left_out in ((["leak"], {one}), ("duplicate", set()), (None, {one, other})):
        split, found = parted({**OFFICIAL, "drop": file, "drop_faults": faults}, USAGE, LABELS)
        assert set(of(TRAINING)) - set(split.train) == left_out
        assert found is not None
        assert found["rows"] == {"train": len(left_out), "val": 0, "test": 0}
    assert parted({**OFFICIAL, "drop": None}, USAGE, LABELS)[1] is None


def test_lists_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    row = of(TRAINING)[0]
    (tmp_path / "bare.csv").write_text(f"row\n{row}\n")
    (tmp_path / "other.csv").write_text("number\n1\n")
    bare = str(tmp_path / "bare.csv")
    assert row not in parted({**OFFICIAL, "drop": bare}, USAGE, LABELS)[0].train
    for settings, said in (
        ((str(tmp_path / "none.csv"),), "cannot be read: No such file"),
        ((str(tmp_path / "other.csv"),), "is no list of rows"),
        ((bare, ["leak"]), "has no column fault"),
        ((bare, None, ["training"]), r"drop_from=\['training'\]: expected one or more of train, val, test"),
        ((None, ["leak"]), "names no file"),
        ((listed(tmp_path, "2000,Training,leak"),), "names row 2000, and the data has 2,000 rows"),
        ((listed(tmp_path, f"{row},PublicTest,leak"),), "as PublicTest, and in the data it is Training"),
        ((listed(tmp_path, f"{row},Training,leak"), ["leek"]), "knows no leek; expected some of leak"),
    ):
        with pytest.raises(UserError, match=said):
            parted(OFFICIAL | dict(zip(NOTHING_DROPPED, settings, strict=False)), USAGE, LABELS)
