"""Find issues of a source's faces and labels."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion.data import duplicates
from emotion.data.duplicates import Groups
from emotion.data.faces import USAGES, Faces
from emotion.data.readers.ferplus import VOTE_NAMES, plurality_vote
from emotion.io.atomic import write_text

RowNumbers = NDArray[np.int64]
Votes = NDArray[np.integer]

ISSUES = (
    "leak", "duplicate", "conflict", "near_leak", "near_duplicate", "blank", "low_contrast", "not_a_face", "label",
)  # fmt: skip
"""All issues in reporting order. The rows of a leak also occur in a later part (of Training, PublicTest, PrivateTest);
duplicates are all but the first of identical rows in one part. Without both, every image occurs once."""

COLUMNS = ("row", "usage", "label", "issue", "group", "suggestion", "origin")
EXCLUDE, REVIEW = "exclude", "review"


class Issue(NamedTuple):
    """The rows that have an issue, and for each a suggestion: `EXCLUDE`, `REVIEW`, the class to assign, or ""."""

    rows: RowNumbers
    suggestions: list[str]
    groups: Groups | None = None  # of all N faces, for issues of groups


def find_duplicates(faces: Faces, exact: Groups, votes: Votes | None) -> dict[str, Issue]:
    """Return leak, duplicate and conflict; a conflict's suggestion is the most frequent vote of FER+ in its group."""
    duplicate = _first_in_usage(exact, faces.usage) != np.arange(len(faces))
    conflict = np.flatnonzero(_is_mixed(exact, faces.labels))
    voted = [""] * len(faces)
    if votes is not None:
        group_votes = np.zeros(votes.shape, np.int64)
        np.add.at(group_votes, exact, votes)
        voted = plurality_vote(group_votes)[exact].tolist()
    suggestions = [voted[row] if voted[row] in faces.classes else REVIEW for row in conflict]
    return {
        "leak": _exclude(_occurs_later(exact, faces.usage), exact),
        "duplicate": _exclude(duplicate, exact),
        "conflict": Issue(conflict, suggestions, exact),
    }


def find_near_duplicates(faces: Faces, exact: Groups, near: Groups) -> dict[str, Issue]:
    """Return near_leak and near_duplicate: leaks and duplicates of similar images that are not identical.

    Those of groups with different labels may be different photographs and are to be reviewed.
    """
    is_mixed = _is_mixed(near, faces.labels)
    near_leak = _occurs_later(near, faces.usage) & ~_occurs_later(exact, faces.usage)
    near_duplicate = exact[_first_in_usage(near, faces.usage)] != exact
    found = {"near_leak": np.flatnonzero(near_leak), "near_duplicate": np.flatnonzero(near_duplicate)}
    if faces.is_synthetic:  # no copies: each was generated for its own class
        return {name: Issue(rows, [""] * len(rows), near) for name, rows in found.items()}
    return {name: Issue(rows, np.where(is_mixed[rows], REVIEW, EXCLUDE).tolist(), near) for name, rows in found.items()}


def find_low_contrast(faces: Faces, low_contrast: float) -> dict[str, Issue]:
    """Return blank (constant images) and low_contrast (standard deviation below `low_contrast` gray levels)."""
    deviation = np.array([image.std() for image in faces.images])
    low = np.flatnonzero((deviation > 0) & (deviation < low_contrast))
    return {"blank": _exclude(deviation == 0, None), "low_contrast": Issue(low, [REVIEW] * len(low))}


def find_non_faces(votes: Votes) -> dict[str, Issue]:
    """Return not_a_face: more of FER+'s annotators chose "not a face" than anything else."""
    return {"not_a_face": _exclude(plurality_vote(votes) == VOTE_NAMES["NF"], None)}


def near_duplicate_groups(faces: Faces, exact: Groups, bits: int, correlation: float, *, mirrored: bool) -> Groups:
    """Group identical and similar faces; see `duplicates.near_duplicate_pairs`."""
    pairs = duplicates.near_duplicate_pairs(faces.images, np.unique(exact), bits, correlation, mirrored=mirrored)
    return duplicates.merge_groups(pairs, exact)


def count_issues(faces: Faces, issues: Mapping[str, Issue]) -> dict[str, dict[str, int]]:
    """Return the rows of each issue, in total and by usage, and the groups for issues of groups."""
    table = {}
    for name, issue in issues.items():
        by_usage = np.bincount(faces.usage[issue.rows], minlength=len(USAGES)).tolist()
        present = {usage: n for usage, n, all_ in zip(USAGES, by_usage, faces.counts().sum(1), strict=True) if all_}
        groups = {} if issue.groups is None else {"groups": len(np.unique(issue.groups[issue.rows]))}
        table[name] = {"rows": len(issue.rows), **present, **groups}
    return table


def write_rows(path: Path, faces: Faces, issues: Mapping[str, Issue]) -> None:
    """Write a CSV file with one line per row and issue; a group is named by its first row."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for name, issue in issues.items():
        for row, suggestion in zip(issue.rows.tolist(), issue.suggestions, strict=True):
            group = "" if issue.groups is None else int(issue.groups[row])
            usage, label = USAGES[faces.usage[row]], faces.classes[faces.labels[row]]
            table.writerow((row, usage, label, name, group, suggestion, faces.origin_of(row)))
    write_text(path, text.getvalue())


def _exclude(mask: NDArray[np.bool_], groups: Groups | None) -> Issue:
    rows = np.flatnonzero(mask)
    return Issue(rows, [EXCLUDE] * len(rows), groups)


def _is_mixed(groups: Groups, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return whether each row's group (N,) has rows with different labels."""
    lowest, highest = np.full(len(groups), 255, np.uint8), np.zeros(len(groups), np.uint8)
    np.minimum.at(lowest, groups, labels)
    np.maximum.at(highest, groups, labels)
    return (lowest < highest)[groups]


def _first_in_usage(groups: Groups, usage: NDArray[np.uint8]) -> RowNumbers:
    """Return the first row (N,) of each row's group within its usage."""
    _, first, own = np.unique(groups * len(USAGES) + usage, return_index=True, return_inverse=True)
    return np.asarray(first[own], np.int64)


def _occurs_later(groups: Groups, usage: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return whether each row's group (N,) has a row in a later usage."""
    latest = np.zeros(len(groups), np.uint8)
    np.maximum.at(latest, groups, usage)
    return usage < latest[groups]
