"""What may be wrong with faces, each fault with the rows that have it."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion.data import duplicates
from emotion.data.duplicates import Groups
from emotion.data.faces import USAGES, Faces
from emotion.data.readers.ferplus import SEEN
from emotion.io.atomic import write_text

Rows = NDArray[np.int64]
Counts = NDArray[np.integer]

FAULTS = (
    "leak", "duplicate", "conflict", "near_leak", "near_duplicate", "blank", "low_contrast", "not_a_face", "label",
)  # fmt: skip
"""In the order in which they are told. A leak is a row that stands in a later part as well, of Training, PublicTest,
PrivateTest; a duplicate is any but the first of equal rows in one part. Without both, every picture is there once."""

COLUMNS = ("row", "usage", "label", "fault", "group", "suggestion")
DROP, LOOK = "drop", "look"


class Fault(NamedTuple):
    """The rows that have a fault, what they belong to, and for each what to do: drop, look, or a class to give it."""

    rows: Rows
    suggestions: list[str]
    groups: Groups | None = None  # of all N faces, where the fault is one of groups


def copies(faces: Faces, exact: Groups, votes: Counts | None) -> dict[str, Fault]:
    """leak, duplicate and conflict; a conflict's class is the one that FER+ saw in most of its group's faces."""
    duplicate = _firsts(exact, faces.usage) != np.arange(len(faces))
    first = np.full(len(faces), len(faces.classes))
    np.minimum.at(first, exact, faces.labels)
    last = np.zeros(len(faces), int)
    np.maximum.at(last, exact, faces.labels)
    conflict = np.flatnonzero((first < last)[exact])
    seen = [""] * len(faces)
    if votes is not None:
        summed = np.zeros(votes.shape, np.int64)
        np.add.at(summed, exact, votes)
        seen = most_seen(summed)[exact].tolist()
    return {
        "leak": _to_drop(_later(exact, faces.usage), exact),
        "duplicate": _to_drop(duplicate, exact),
        "conflict": Fault(conflict, [seen[row] if seen[row] in faces.classes else LOOK for row in conflict], exact),
    }


def near_copies(faces: Faces, exact: Groups, near: Groups) -> dict[str, Fault]:
    """near_leak and near_duplicate: the same of pictures that are alike and not equal."""
    other = exact[_firsts(near, faces.usage)] != exact
    return {
        "near_leak": _to_drop(_later(near, faces.usage) & ~_later(exact, faces.usage), near),
        "near_duplicate": _to_drop(other, near),
    }


def pale(faces: Faces, low_contrast: float) -> dict[str, Fault]:
    """Blank: of one colour. low_contrast: the standard deviation of its grey levels, of 0 to 255, is below that."""
    spread = np.array([image.std() for image in faces.images])
    constant = spread == 0
    low = np.flatnonzero(~constant & (spread < low_contrast))
    return {"blank": _to_drop(constant, None), "low_contrast": Fault(low, [LOOK] * len(low))}


def not_faces(votes: Counts) -> dict[str, Fault]:
    """Where more of FER+'s taggers saw no face than saw anything else."""
    return {"not_a_face": _to_drop(most_seen(votes) == SEEN["NF"], None)}


def most_seen(votes: Counts) -> NDArray[np.str_]:
    """What has more votes than anything else (N,) of votes (N, 10), by FER2013's name; empty where two have as many."""
    second, most = np.sort(votes, 1)[:, -2:].T
    return np.where(most > second, np.array(list(SEEN.values()))[votes.argmax(1)], "")


def standing_in(exact: Groups, usage: NDArray[np.uint8], one: int, others: Sequence[int]) -> int:
    """How many rows of usage `one` stand in one of `others` as well, to the pixel."""
    return int(np.isin(exact[usage == one], exact[np.isin(usage, others)]).sum())


def counts(faces: Faces, found: Mapping[str, Fault]) -> dict[str, dict[str, int]]:
    """By fault: rows in all and by usage, and groups where it is one of groups."""
    table = {}
    for name, fault in found.items():
        by_usage = np.bincount(faces.usage[fault.rows], minlength=len(USAGES)).tolist()
        present = {usage: n for usage, n, all_ in zip(USAGES, by_usage, faces.counts().sum(1), strict=True) if all_}
        groups = {} if fault.groups is None else {"groups": len(np.unique(fault.groups[fault.rows]))}
        table[name] = {"rows": len(fault.rows), **present, **groups}
    return table


def write(path: Path, faces: Faces, found: Mapping[str, Fault]) -> None:
    """rows.csv: one line for each face and fault; a group bears the number of its first row."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for name, fault in found.items():
        for row, suggestion in zip(fault.rows.tolist(), fault.suggestions, strict=True):
            group = "" if fault.groups is None else int(fault.groups[row])
            what = USAGES[faces.usage[row]], faces.classes[faces.labels[row]]
            table.writerow((row, *what, name, group, suggestion))
    write_text(path, text.getvalue())


def near_groups(faces: Faces, exact: Groups, bits: int, correlation: float, *, mirrored: bool) -> Groups:
    """Equal faces and nearly equal ones together, however indirectly; see `duplicates.near`."""
    pairs = duplicates.near(faces.images, np.unique(exact), bits, correlation, mirrored=mirrored)
    return duplicates.joined(pairs, exact)


def _to_drop(having: NDArray[np.bool_], groups: Groups | None) -> Fault:
    rows = np.flatnonzero(having)
    return Fault(rows, [DROP] * len(rows), groups)


def _firsts(groups: Groups, usage: NDArray[np.uint8]) -> Rows:
    """(N,) the first row of each one's group in its own usage."""
    _, first, own = np.unique(groups * len(USAGES) + usage, return_index=True, return_inverse=True)
    return np.asarray(first[own], np.int64)


def _later(groups: Groups, usage: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(N,) whether the group has a row in a later usage."""
    latest = np.zeros(len(groups), np.uint8)
    np.maximum.at(latest, groups, usage)
    return usage < latest[groups]
