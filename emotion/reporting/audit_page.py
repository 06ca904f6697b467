"""audit.html: a self-contained page with a section of sample faces for each issue, rendered from audit_page.html."""

import base64
import io
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader
from numpy.typing import NDArray
from PIL import Image

from emotion.data.faces import USAGES, Faces
from emotion.data.issues import EXCLUDE, ISSUES, REVIEW, Issue
from emotion.data.sources import DEFAULT_FOLDER
from emotion.errors import counted

IMAGE_SIDE = 96  # pixels on the page
MAX_GROUP_IMAGES = 6
DATA_SETTINGS = ("data=", "data.", "data/", "data@", "data_dir=", "cache_dir=", "plugins=", "hydra.searchpath=")

Group = tuple[int, list[int]]
"""A group's number and rows."""


class Text(NamedTuple):
    """The text of an issue's section."""

    title: str
    description: str
    advice: str


class Card(NamedTuple):
    """A face on the page."""

    row: int
    label: str
    usage: str
    origin: str  # empty if it is the row itself, as in a CSV file
    note: str
    is_suggestion: bool  # whether the note suggests a change
    image: str  # data URI


SAME_PHOTOGRAPH = (
    "The same photograph scaled, cropped, relit, recompressed or mirrored. If the labels in a group differ, one "
    "of them is wrong, or these are different photographs: review them."
)
SYNTHETIC_ADVICE = (
    "Synthetic faces whose pixels hardly differ, each generated for its own class.",
    "Nothing: they are not copies.",
)

TEXTS: Mapping[str, Text] = {
    "leak": Text(
        "Leaked into a later part",
        "Rows whose exact pixels also occur in a later part (of Training, PublicTest, PrivateTest). A network that was "
        "trained on them has already seen these test faces.",
        "Exclude them from training. The deduplicated scores in every run's record are not affected by them.",
    ),
    "duplicate": Text(
        "Exact duplicates within a part",
        "All but the first of the rows with equal pixels in one part. They count double in training and in a test.",
        "Exclude them; without them and the leaks, every image occurs once.",
    ),
    "conflict": Text(
        "Equal pixels, different labels",
        "One image with two or more labels. At least one is wrong, and no network can predict both.",
        "Exclude them from training, or assign the class behind the arrow, which got most votes of FER+'s annotators.",
    ),
    "near_leak": Text(
        "Nearly equal to a row of a later part",
        f"{SAME_PHOTOGRAPH} Deduplicated scores do not catch these.",
        "Exclude them from training to be strict. Groups are joined pair by pair, so check large ones.",
    ),
    "near_duplicate": Text(
        "Nearly equal within a part",
        SAME_PHOTOGRAPH,
        "They do little harm in training. If validation rows are sampled from Training, exclude them from both.",
    ),
    "blank": Text(
        "Blank",
        "Images of a single color. They can neither be learned from nor classified.",
        "Exclude them from training.",
    ),
    "low_contrast": Text(
        "Very low contrast",
        "Images that are not blank but whose gray levels hardly differ.",
        "Review them. Exclude those that a person cannot recognize either.",
    ),
    "not_a_face": Text(
        "Not a face",
        "More of FER+'s ten annotators voted for 'not a face' than for any emotion.",
        "Exclude them from training.",
    ),
    "label": Text(
        "Probably mislabeled",
        "Confident learning on faces that the checkpoint was not trained on: it gives the label a low probability, and "
        "another class a higher one than it usually gives that class. The least likely labels come first.",
        "Review them; the class behind the arrow is the network's prediction, and networks are wrong too. Never clean "
        "a test set with the network that is evaluated on it. For training faces, give a run that held some of them "
        "out for validation: split=stratified_15.",
    ),
}  # fmt: skip


def page(result: Mapping[str, Any], faces: Faces, issues: Mapping[str, Issue], max_images: int, rows_file: Path) -> str:
    """Return the HTML page, with at most `max_images` images in a section; issues that were found come first.

    `result` is the content of audit.json, `rows_file` the table of rows with an issue, as a command names it.
    """
    found = sorted((name for name in ISSUES if name in issues), key=lambda name: not issues[name].rows.size)
    excluded_for: dict[int, str] = {}  # the first reason
    for name in found:
        for row, suggestion in zip(issues[name].rows.tolist(), issues[name].suggestions, strict=True):
            if suggestion == EXCLUDE:
                excluded_for.setdefault(row, name)
    command = _training_command(result, rows_file)
    loader = FileSystemLoader(Path(__file__).parent)
    template = Environment(loader=loader, autoescape=True, trim_blocks=True).get_template("audit_page.html")
    return template.render(
        result=result,
        source=faces.source,
        texts=TEXTS,
        sections=[_section(name, issues[name], faces, max_images, result, excluded_for, command) for name in found],
        classes=list(next(iter(result["classes"].values()), {})),
        number="{:,}".format,
        counted=counted,
        image_side=IMAGE_SIDE,
    )


def _section(
    name: str,
    issue: Issue,
    faces: Faces,
    max_images: int,
    result: Mapping[str, Any],
    excluded_for: Mapping[int, str],
    command: Sequence[str],
) -> dict[str, Any]:
    """Return the template's variables of an issue's section."""
    counts, text = result["issues"][name], TEXTS[name]
    if name.startswith("near_") and faces.is_synthetic:
        text = Text(text.title, *SYNTHETIC_ADVICE)
    suggestions = dict(zip(issue.rows.tolist(), issue.suggestions, strict=True))

    def cards(rows: Sequence[int]) -> list[Card]:
        return [_card(row, suggestions.get(row), faces, excluded_for) for row in rows]

    has_command = counts.get("Training") and any(issue.suggestions)
    section = {
        "name": name,
        "text": text,
        "counts": counts,
        "by_usage": ", ".join(f"{counts[usage]:,} in {usage}" for usage in USAGES if usage in counts),
        "command": shlex.join([*command, f"split.exclude_issues=[{name}]"]) if has_command else "",
    }
    if issue.groups is None:
        rows = issue.rows[:max_images].tolist()
        return section | {"groups": None, "faces": cards(rows), "shown": len(rows), "total": counts["rows"]}
    groups = []
    for group, members in _select_groups(_groups_of(issue), max_images):
        latest = members[MAX_GROUP_IMAGES - 1 :][-1:]  # of the last part
        shown = [*members[: MAX_GROUP_IMAGES - 1], *latest]
        heading = f"Group {group}: {counted(len(members), 'row')}"
        heading += f", {len(shown)} of them shown" if len(shown) < len(members) else ""
        heading += ", different labels" if len(set(faces.labels[members].tolist())) > 1 else ""
        groups.append({"heading": heading, "faces": cards(shown)})
    return section | {"groups": groups, "shown": len(groups), "total": counts["groups"]}


def _card(row: int, suggestion: str | None, faces: Faces, excluded_for: Mapping[int, str]) -> Card:
    label = faces.classes[faces.labels[row]]
    is_suggestion = bool(suggestion) and suggestion != label
    if not suggestion:
        note = f"see {excluded_for[row]}" if row in excluded_for else "keep"
    elif suggestion == label:
        note = "as labeled"
    else:
        note = suggestion if suggestion in (EXCLUDE, REVIEW) else f"→ {suggestion}"
    origin = faces.origin_of(row).removeprefix(f"row {row}")
    return Card(row, label, USAGES[faces.usage[row]], origin, note, is_suggestion, _data_uri(faces.images[row]))


def _training_command(result: Mapping[str, Any], rows_file: Path) -> list[str]:
    """Return the command that trains on the audited data without the rows of a file."""
    given = [word for word in shlex.split(result["command"]) if word.startswith(DATA_SETTINGS)]
    folder = result["config"]["data_dir"]
    if folder != str(DEFAULT_FOLDER) and not any(word.startswith("data_dir=") for word in given):  # EMOTION_DATA
        given.append(f"data_dir={folder}")
    return ["python", "-m", "emotion.train", *given, f"split.exclude={rows_file}"]


def _select_groups(groups: Sequence[Group], max_images: int) -> Sequence[Group]:
    """Return as many groups as `max_images` allows, at least one, evenly spaced from the first to the last."""
    sizes = np.array([min(len(members), MAX_GROUP_IMAGES) for _, members in groups])
    for count in range(min(len(groups), max_images), 0, -1):
        indices = np.linspace(0, len(groups) - 1, count).astype(int)
        if count == 1 or sizes[indices].sum() <= max_images:
            return [groups[index] for index in indices]
    return []


def _groups_of(issue: Issue) -> list[Group]:
    """Return the groups with rows of an issue, largest first, each with all its rows."""
    assert issue.groups is not None
    order = np.argsort(issue.groups, kind="stable")
    numbers, sizes = np.unique(issue.groups[issue.rows], return_counts=True)
    starts = np.searchsorted(issue.groups[order], numbers)
    ends = np.searchsorted(issue.groups[order], numbers, "right")
    return [(int(numbers[i]), order[starts[i] : ends[i]].tolist()) for i in np.lexsort((numbers, -sizes))]


def _data_uri(image: NDArray[np.uint8]) -> str:
    """Return an image as a PNG data URI of at most twice its side on the page."""
    picture = Image.fromarray(image)
    picture.thumbnail((2 * IMAGE_SIDE, 2 * IMAGE_SIDE))
    picture.save(file := io.BytesIO(), "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
