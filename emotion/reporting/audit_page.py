"""audit.html: a self-contained page with a section of sample faces for each issue."""

import base64
import io
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion.data.faces import USAGES, Faces
from emotion.data.issues import EXCLUDE, ISSUES, REVIEW, Issue
from emotion.data.sources import DEFAULT_FOLDER

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


SAME_PHOTOGRAPH = (
    "The same photograph scaled, cropped, relit, recompressed or mirrored. If the labels in a group differ, one "
    "of them is wrong, or these are different photographs: review them."
)
SYNTHETIC_ADVICE = (
    "Synthetic faces that hardly differ in pixels, each generated for its own class.",
    "Nothing; they are no copies.",
)

TEXTS: Mapping[str, Text] = {
    "leak": Text(
        "Leaked into a later part",
        "Rows whose exact pixels also occur in a later part (of Training, PublicTest, PrivateTest). A network that was "
        "trained on them has seen the answers of the test.",
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
        "Images that are not blank but whose grey levels hardly differ.",
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
    """Return the HTML page; issues that were found come first.

    Args:
        result: Content of audit.json.
        faces: The audited faces.
        issues: The issues that were looked for, by name.
        max_images: Maximum number of images in a section.
        rows_file: The table of all rows with an issue, as a command names it.
    """
    found = sorted((name for name in ISSUES if name in issues), key=lambda name: not issues[name].rows.size)
    excluded_for: dict[int, list[str]] = {}
    for name in found:
        for row, suggestion in zip(issues[name].rows.tolist(), issues[name].suggestions, strict=True):
            if suggestion == EXCLUDE:
                excluded_for.setdefault(row, []).append(name)
    command = _training_command(result, rows_file)
    sections = [_section(name, issues[name], faces, max_images, result, excluded_for, command) for name in found]
    sections += [_skipped_section(name, reason) for name, reason in result["skipped"].items()]
    counts = {name: f"{issues[name].rows.size:,}" if name in issues else "-" for name in (*found, *result["skipped"])}
    links = [f'<li><a href="#{name}">{escape(TEXTS[name].title)} <b>{n}</b></a></li>' for name, n in counts.items()]
    synthetic = "<p class=act>These faces are synthetic: FER2013 was not found.</p>"
    style = files("emotion.reporting").joinpath("audit_page.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Audit of {escape(faces.source)}</title>
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the issues</a>
<header>
<h1>Audit of {escape(faces.source)}</h1>
<p>{len(faces):,} faces, {result["distinct_images"]:,} distinct images, {result["redundant_rows"]:,} redundant rows.</p>
{synthetic if result["data"]["synthetic"] else ""}</header>
<nav aria-label="Issues"><ul>
{"".join(links)}<li><a href="#classes">Classes by part</a></li><li><a href="#provenance">Provenance</a></li>
</ul></nav>
<main id="content">
{"".join(sections)}{_classes_section(result["classes"])}{_provenance_section(result)}</main>
</body>
</html>
"""


def _section(
    name: str,
    issue: Issue,
    faces: Faces,
    max_images: int,
    result: Mapping[str, Any],
    excluded_for: Mapping[int, list[str]],
    command: Sequence[str],
) -> str:
    counts, text = result["issues"][name], TEXTS[name]
    if name.startswith("near_") and faces.is_synthetic:
        text = Text(text.title, *SYNTHETIC_ADVICE)
    by_usage = ", ".join(f"{counts[usage]:,} in {usage}" for usage in USAGES if usage in counts)
    groups = f", in {counts['groups']:,} groups" if "groups" in counts else ""
    held_out = ""
    if name == "label":
        checkpoint = result["checkpoint"]
        held_out = (
            f" Evaluated: {checkpoint['held_out']:,} held-out faces; {escape(checkpoint['path'])} classifies "
            f"{100 * checkpoint['accuracy']:.1f} % of them as labeled."
        )
    advice = f"<p class=act><b>What to do:</b> {escape(text.advice)}</p>" if counts["rows"] else ""
    if counts.get("Training") and any(issue.suggestions):
        line = shlex.join([*command, f"split.exclude_issues=[{name}]"])
        advice += (
            f"<p class=act>To train without these rows (add the settings of your run):</p><pre>{escape(line)}</pre>"
        )
    shown, cards = _cards(issue, faces, max_images, excluded_for)
    total, unit = (counts["groups"], "groups") if "groups" in counts else (counts["rows"], "faces")
    note = f"<p class=note>{shown:,} of {total:,} {unit} shown; rows.csv lists all.</p>" if shown < total else ""
    return (
        f'<section id="{name}" tabindex="-1" aria-labelledby="{name}-title">\n'
        f'<h2 id="{name}-title">{escape(text.title)} <code>{name}</code></h2>\n'
        f"<p class=count><b>{counts['rows']:,}</b> rows{groups}: {by_usage}.</p>\n"
        f"<p>{escape(text.description)}{held_out}</p>\n{advice}\n{note}\n{cards}</section>\n"
    )


def _training_command(result: Mapping[str, Any], rows_file: Path) -> list[str]:
    """Return the command that trains on the audited data without the rows of a file."""
    given = [word for word in shlex.split(result["command"]) if word.startswith(DATA_SETTINGS)]
    folder = result["config"]["data_dir"]
    if folder != str(DEFAULT_FOLDER) and not any(word.startswith("data_dir=") for word in given):  # EMOTION_DATA
        given.append(f"data_dir={folder}")
    return ["python", "-m", "emotion.train", *given, f"split.exclude={rows_file}"]


def _cards(issue: Issue, faces: Faces, max_images: int, excluded_for: Mapping[int, list[str]]) -> tuple[int, str]:
    """Return the number of groups (or of faces, without groups) that are shown, and their HTML."""
    suggestions = dict(zip(issue.rows.tolist(), issue.suggestions, strict=True))

    def card(row: int) -> str:
        suggestion, label = suggestions.get(row), faces.classes[faces.labels[row]]
        if not suggestion:
            others = excluded_for.get(row)
            note = f"<span class=keep>{f'see {others[0]}' if others else 'keep'}</span>"
        elif suggestion == label:
            note = "<span class=keep>as labeled</span>"
        else:
            text = suggestion if suggestion in (EXCLUDE, REVIEW) else f"→ {suggestion}"
            note = f"<span class=suggestion>{escape(text)}</span>"
        usage = USAGES[faces.usage[row]]
        return (
            f'<li><figure><img src="{_data_uri(faces.images[row])}" width="{IMAGE_SIDE}" height="{IMAGE_SIDE}" '
            f'alt="{escape(f"Row {row}, {label}, {usage}")}">'
            f"<figcaption><b>{escape(label)}</b><br>{usage}<br>row {row}<br>{note}</figcaption></figure></li>"
        )

    def card_list(rows: Iterable[int]) -> str:
        return f"<ul class=faces>{''.join(map(card, rows))}</ul>\n"

    if issue.groups is None:
        rows = issue.rows[:max_images].tolist()
        return len(rows), card_list(rows)
    blocks = []
    for group, members in _select_groups(_groups_of(issue), max_images):
        shown = [
            *members[: MAX_GROUP_IMAGES - 1],
            *members[MAX_GROUP_IMAGES - 1 :][-1:],
        ]  # the last is the latest part's
        count = f", {len(shown)} of them shown" if len(shown) < len(members) else ""
        count += ", different labels" if len(set(faces.labels[members].tolist())) > 1 else ""
        blocks.append(f"<div class=group><h3>Group {group}: {len(members)} rows{count}</h3>{card_list(shown)}</div>\n")
    return len(blocks), f"<div class=groups>\n{''.join(blocks)}</div>\n"


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


def _skipped_section(name: str, reason: str) -> str:
    text = TEXTS[name]
    return (
        f'<section id="{name}" tabindex="-1"><h2>{escape(text.title)} <code>{name}</code></h2>'
        f"<p>{escape(text.description)}</p><p class=act>Skipped: {escape(reason)}.</p></section>\n"
    )


def _classes_section(counts: Mapping[str, Mapping[str, int]]) -> str:
    names = list(next(iter(counts.values()), {}))
    rows = []
    for usage, of_usage in counts.items():
        total = sum(of_usage.values())
        cells = (f"{of_usage[name]:,} ({100 * of_usage[name] / max(1, total):.1f} %)" for name in names)
        rows.append([usage, *cells, f"{total:,}"])
    return (
        '<section id="classes" tabindex="-1"><h2>Classes by part</h2>\n<div class=wide tabindex=0>'
        f"{_table(['', *names, 'all'], rows)}</div></section>\n"
    )


def _provenance_section(result: Mapping[str, Any]) -> str:
    votes, checkpoint, near = result["votes"], result["checkpoint"], result["config"]["near"]
    epochs = " and ".join(str(epoch) for epoch in checkpoint["epochs"]) if checkpoint else ""
    facts = {
        "command": result["command"],
        "commit": str(result["commit"]),
        "digest of the data": result["data"]["digest"],
        "votes": f"{votes['path']} ({votes['digest']})" if votes else "none",
        "checkpoint": f"{checkpoint['path']}, epoch {epochs}" if checkpoint else "none",
        "near": f"64-bit hashes differ in at most {near['bits']} bits, correlation at least {near['correlation']}",
        "versions": ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
    }
    items = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
    return f'<section id="provenance" tabindex="-1"><h2>Provenance</h2><dl>{items}</dl></section>\n'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    columns = "".join(f"<th scope=col>{escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr><th scope=row>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"
