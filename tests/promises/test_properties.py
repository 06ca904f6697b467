"""Properties of readers, label schemes and splits for generated inputs."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emotion.data import splits
from emotion.data.faces import EMOTIONS, PRIVATE_TEST, PUBLIC_TEST, TEST, TRAINING, Faces
from emotion.data.labels import NO_CLASS, relabel
from emotion.data.readers import fer2013
from emotion.data.readers.ferplus import drop_single_votes, majority_labels
from emotion.data.readers.path_list import read as read_list
from emotion.data.splits import read_exclusions
from emotion.errors import UserError

fast = settings(max_examples=60, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)


def refusal(read: Callable[[], object], otherwise: str) -> str:
    """Return the error message, or `otherwise` if the file is read."""
    try:
        read()
    except UserError as error:
        return str(error)
    return otherwise


def table(seed: int, rows: int, usages: tuple[int, ...]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return random usages and labels; some rows have no class."""
    rng = np.random.default_rng(seed)
    usage = rng.choice(np.array(usages, np.uint8), rows)
    return usage, rng.integers(NO_CLASS, len(EMOTIONS), rows)


@fast
@given(seeds, st.integers(0, 300), st.floats(0, 1), seeds, st.sampled_from(["stratified", "random"]))
def test_a_random_split_uses_every_row_once(seed: int, rows: int, fraction: float, split_seed: int, name: str) -> None:
    usage, labels = table(seed, rows, (TRAINING, PUBLIC_TEST, PRIVATE_TEST, TEST))
    split = getattr(splits, name)(usage, labels, fraction, split_seed)
    again = getattr(splits, name)(usage, labels, fraction, split_seed)
    everything = np.concatenate(split)
    np.testing.assert_array_equal(np.sort(everything), np.flatnonzero(labels != NO_CLASS))
    assert (usage[split.train] == TRAINING).all()
    assert (usage[split.val] == TRAINING).all()
    assert (usage[split.test] != TRAINING).all()
    for part, same in zip(split, again, strict=True):
        np.testing.assert_array_equal(part, same)
        np.testing.assert_array_equal(part, np.sort(part))
    if name == "random":
        assert len(split.val) == math.floor(round(fraction * len(np.concatenate(split[:2])), 6))
    else:
        for label in range(len(EMOTIONS)):
            of_class = np.count_nonzero(labels[np.concatenate([split.train, split.val])] == label)
            assert np.count_nonzero(labels[split.val] == label) == math.floor(round(fraction * of_class, 6))


@fast
@given(seeds, st.integers(0, 300))
def test_the_official_split_follows_the_usages(seed: int, rows: int) -> None:
    usage, labels = table(seed, rows, (TRAINING, PUBLIC_TEST, PRIVATE_TEST))
    official, swapped = splits.official(usage, labels), splits.swapped_test(usage, labels)
    for part, expected in zip(official, (TRAINING, PUBLIC_TEST, PRIVATE_TEST), strict=True):
        np.testing.assert_array_equal(part, np.flatnonzero((usage == expected) & (labels != NO_CLASS)))
    assert [part.tolist() for part in swapped] == [official[place].tolist() for place in (0, 2, 1)]


@fast
@given(st.lists(st.integers(0, 6), max_size=60), st.lists(st.sampled_from([*range(4), None]), min_size=7, max_size=7))
def test_a_label_scheme_maps_each_class(labels: list[int], places: list[int | None]) -> None:
    scheme = {
        f"class {place}": [e for e, to in zip(EMOTIONS, places, strict=True) if to == place] for place in range(4)
    }
    found = relabel(np.array(labels, np.uint8), EMOTIONS, scheme)
    assert found.tolist() == [NO_CLASS if places[label] is None else places[label] for label in labels]


@fast
@given(st.lists(st.text(min_size=1), min_size=1, max_size=6), st.data())
def test_a_scheme_with_unknown_or_repeated_classes_is_refused(names: list[str], data: st.DataObject) -> None:
    taken = data.draw(st.lists(st.sampled_from([*names, "no such class"]), min_size=1, max_size=8))
    scheme = {"one": taken}
    if "no such class" in taken or len(set(taken)) < len(taken):
        with pytest.raises(UserError, match="Label scheme: "):
            relabel(np.zeros(1, np.uint8), list(dict.fromkeys(names)), scheme)
    else:
        assert (relabel(np.arange(1, dtype=np.uint8), taken, scheme) == 0).all()


@fast
@given(st.binary(max_size=200), st.sampled_from(["csv", "list", "map", "rows"]))
def test_any_bytes_are_read_or_refused_with_a_message(content: bytes, kind: str) -> None:
    column = np.zeros(3, np.uint8)
    three_rows = Faces(np.zeros((3, 1, 1), np.uint8), column, column, np.zeros(3, "S1"), EMOTIONS, "", "x.csv")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        heads = {"csv": b"emotion,pixels,Usage\n0,", "list": b"path,label\n", "map": b'{"a": ', "rows": b"row,usage\n"}
        names = {"csv": "x.csv", "list": "train.csv", "map": "label_map.json", "rows": "rows.csv"}
        (place / "train.csv").write_text("path,label\ntrain.csv,0\n")
        (place / names[kind]).write_bytes(heads[kind] + content)
        reads: dict[str, Callable[[], object]] = {
            "csv": lambda: list(fer2013.read_csv(str(place / "x.csv")).chunks),
            "rows": lambda: read_exclusions(str(place / "rows.csv"), None, three_rows),
        }
        assert folder in refusal(reads.get(kind, lambda: read_list(str(place / "train.csv"))), folder)


@fast
@given(st.lists(st.integers(0, 10), min_size=10, max_size=10), st.floats(0, 0.99))
def test_the_majority_label_needs_more_than_the_required_share(votes: list[int], agreement: float) -> None:
    remaining = drop_single_votes(np.array([votes], np.uint8))
    chosen = int(majority_labels(remaining, agreement)[0])
    most = [place for place, count in enumerate(remaining[0]) if count > agreement * remaining.sum()]
    if most and remaining[0].max() > agreement * remaining.sum():
        assert remaining[0, chosen] == remaining[0].max()
    else:
        assert chosen == 8  # unknown
