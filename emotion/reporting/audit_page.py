"""audit.html: one page that needs nothing but itself, a section for each fault with sample faces."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion.data.faces import USAGES, Faces
from emotion.data.issues import EXCLUDE, ISSUES, REVIEW, Issue

SIDE = 96  # pixels of a picture on the page
OF_A_GROUP = 6  # pictures of one group that are shown

Group = tuple[int, list[int]]
"""A group's number, and its rows."""


class Text(NamedTuple):
    """What a section says: its title, what the fault is, how to act on it."""

    title: str
    what: str
    act: str


TEXTS: Mapping[str, Text] = {
    "leak": Text(
        "Leaked into a later part",
        "Rows whose very pixels stand in a later part as well, of Training, PublicTest, PrivateTest. A network that "
        "trained on them has seen the answers of the test.",
        "Leave them out of training. The scores on clean rows, which every run records, are free of them already.",
    ),
    "duplicate": Text(
        "Exact duplicates within a part",
        "Any but the first of the rows of one part with equal pixels. In training they weigh double, in a test they "
        "count double.",
        "Leave them out; together with the leaks, every picture is then there once.",
    ),
    "conflict": Text(
        "Equal pixels, different labels",
        "One picture under two labels or more: one of them at least is wrong, and no network can have both.",
        "Leave them out of training, or give them the class behind the arrow, which most of FER+'s people saw.",
    ),
    "near_leak": Text(
        "Nearly equal to a row of a later part",
        "The same photograph scaled, cropped, relit, recompressed or mirrored. Scores on clean rows miss it.",
        "Leave them out of training to be strict; the groups below are joined step by step, so look at long ones.",
    ),
    "near_duplicate": Text(
        "Nearly equal within a part",
        "The same photograph once more, scaled, cropped, relit, recompressed or mirrored.",
        "They do little harm in training. Where validation rows are drawn from Training, leave them out of both.",
    ),
    "blank": Text(
        "Blank",
        "Pictures of one colour: nothing can be learnt or judged of them.",
        "Leave them out of training.",
    ),
    "low_contrast": Text(
        "Hardly any contrast",
        "Not blank, and close to it: the grey levels hardly differ.",
        "Look at them. What cannot be recognised by eye is better left out.",
    ),
    "not_a_face": Text(
        "Not a face",
        "More of the ten people who voted for FER+ saw no face here than saw anything else.",
        "Leave them out of training.",
    ),
    "label": Text(
        "Doubtful labels",
        "Confident learning, on faces that the given network was not trained on: it gives the label little "
        "probability, and another class more than it usually gives that class. The most doubtful come first.",
        "Look at them; behind the arrow is what the network sees, and networks err as labels do. Never tidy a test set "
        "by the network that is judged on it. For training faces, give a run that left some of them out to validate "
        "on: split=stratified_15.",
    ),
}  # fmt: skip


def page(result: Mapping[str, Any], faces: Faces, found: Mapping[str, Issue], pictures: int) -> str:
    """The page of an audit.json and what it counts, with at most so many pictures a section."""
    others: dict[int, list[str]] = {}
    for name in (name for name in ISSUES if name in found):
        for row, suggestion in zip(found[name].rows.tolist(), found[name].suggestions, strict=True):
            others.setdefault(row, []).extend([name] if suggestion == EXCLUDE else [])
    sections = [_section(name, found[name], faces, pictures, result, others) for name in ISSUES if name in found]
    sections += [_left_out(name, reason) for name, reason in result["not_looked_for"].items()]
    rows = {name: f"{found[name].rows.size:,}" if name in found else "-" for name in ISSUES}
    links = [f'<li><a href="#{name}">{escape(TEXTS[name].title)} <b>{n}</b></a></li>' for name, n in rows.items()]
    stand_in = "<p class=act>These faces are drawn by the package: FER2013 was not found.</p>"
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
<a class="skip" href="#content">To the faults</a>
<header>
<h1>Audit of {escape(faces.source)}</h1>
<p>{len(faces):,} faces, {result["pictures"]:,} different pictures, {result["redundant"]:,} rows more than that.</p>
{stand_in if result["data"]["synthetic"] else ""}</header>
<nav aria-label="Faults"><ul>
{"".join(links)}<li><a href="#classes">Classes by part</a></li><li><a href="#made">How this was made</a></li>
</ul></nav>
<main id="content">
{"".join(sections)}{_classes(result["classes"])}{_made(result)}</main>
</body>
</html>
"""


def _section(
    name: str, fault: Issue, faces: Faces, pictures: int, result: Mapping[str, Any], others: Mapping[int, list[str]]
) -> str:
    counts, text = result["faults"][name], TEXTS[name]
    by_usage = ", ".join(f"{counts[usage]:,} in {usage}" for usage in USAGES if usage in counts)
    groups = f", in {counts['groups']:,} groups" if "groups" in counts else ""
    judge = result["checkpoint"]
    held_out = ""
    if name == "label":
        right = f"{100 * judge['accuracy']:.1f} % right"
        held_out = f" Looked at: {judge['held_out']:,} faces, of which {escape(judge['path'])} has {right}."
    tail = f"<p class=act><b>What to do:</b> {escape(text.act)}</p>"
    if counts.get("Training"):
        tail += f"<p class=act><code>split.exclude=rows.csv 'split.exclude_issues=[{name}]'</code></p>"
    shown, cards = _cards(fault, faces, pictures, others)
    total = counts.get("groups", counts["rows"])
    unit = "groups" if "groups" in counts else "faces"
    note = f"<p class=note>{shown:,} of {total:,} {unit} shown; rows.csv lists all.</p>" if shown < total else ""
    return (
        f'<section id="{name}" tabindex="-1" aria-labelledby="{name}-title">\n'
        f'<h2 id="{name}-title">{escape(text.title)} <code>{name}</code></h2>\n'
        f"<p class=count><b>{counts['rows']:,}</b> rows{groups}: {by_usage}.</p>\n"
        f"<p>{escape(text.what)}{held_out}</p>\n{tail}\n{note}\n{cards}</section>\n"
    )


def _cards(fault: Issue, faces: Faces, pictures: int, others: Mapping[int, list[str]]) -> tuple[int, str]:
    """How many groups, or faces, are shown, and they; `others` are the faults for which a row is to be dropped."""
    advice = dict(zip(fault.rows.tolist(), fault.suggestions, strict=True))

    def said(row: int) -> str:
        own = advice.get(row)
        if own is None:
            return f"<span class=stays>{f'see {others[row][0]}' if others.get(row) else 'stays'}</span>"
        if own == faces.classes[faces.labels[row]]:
            return "<span class=stays>as labelled</span>"
        return f"<span class=faulty>{escape(own if own in (EXCLUDE, REVIEW) else f'→ {own}')}</span>"

    if fault.groups is None:
        rows = fault.rows[:pictures].tolist()
        return len(rows), _list(_figure(faces, row, said(row)) for row in rows)
    blocks = []
    for group, members in _some(_members(fault), pictures):
        shown = [*members[: OF_A_GROUP - 1], *members[OF_A_GROUP - 1 :][-1:]]  # the last one is of the latest part
        some = f", {len(shown)} of them shown" if len(shown) < len(members) else ""
        figures = _list(_figure(faces, row, said(row)) for row in shown)
        blocks.append(f"<div class=group><h3>Group {group}: {len(members)} rows{some}</h3>{figures}</div>\n")
    return len(blocks), f"<div class=groups>\n{''.join(blocks)}</div>\n"


def _some(groups: Sequence[Group], pictures: int) -> Sequence[Group]:
    """As many of them as `pictures` allow and one at least, evenly from the first to the last."""
    sizes = np.array([min(len(members), OF_A_GROUP) for _, members in groups])
    for count in range(min(len(groups), pictures), 0, -1):
        places = np.linspace(0, len(groups) - 1, count).astype(int)
        if count == 1 or sizes[places].sum() <= pictures:
            return [groups[place] for place in places]
    return []


def _members(fault: Issue) -> list[Group]:
    """The groups of a fault, the largest first, each with all its rows."""
    assert fault.groups is not None
    order = np.argsort(fault.groups, kind="stable")
    names, sizes = np.unique(fault.groups[fault.rows], return_counts=True)
    starts = np.searchsorted(fault.groups[order], names)
    ends = np.searchsorted(fault.groups[order], names, "right")
    return [(int(names[i]), order[starts[i] : ends[i]].tolist()) for i in np.lexsort((names, -sizes))]


def _figure(faces: Faces, row: int, said: str) -> str:
    label, usage = faces.classes[faces.labels[row]], USAGES[faces.usage[row]]
    alt = escape(f"Row {row}, {label}, {usage}")
    return (
        f'<li><figure><img src="{_inline(faces.images[row])}" width="{SIDE}" height="{SIDE}" alt="{alt}">'
        f"<figcaption><b>{escape(label)}</b><br>{usage}<br>row {row}"
        f"<br>{said}</figcaption></figure></li>"
    )


def _list(figures: Iterator[str]) -> str:
    return f"<ul class=faces>{''.join(figures)}</ul>\n"


def _inline(image: NDArray[np.uint8]) -> str:
    """A picture as a PNG data URI, no larger than it is shown."""
    picture = Image.fromarray(image)
    picture.thumbnail((2 * SIDE, 2 * SIDE))
    picture.save(file := io.BytesIO(), "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _left_out(name: str, reason: str) -> str:
    title = escape(TEXTS[name].title)
    return (
        f'<section id="{name}" tabindex="-1"><h2>{title} <code>{name}</code></h2>'
        f"<p>Not looked for: {escape(reason)}.</p></section>\n"
    )


def _classes(balance: Mapping[str, Mapping[str, int]]) -> str:
    names = list(next(iter(balance.values()), {}))
    lines = [[usage, *(f"{row[name]:,} ({_percent(row, name)})" for name in names)] for usage, row in balance.items()]
    sums = [[*line, f"{sum(row.values()):,}"] for line, row in zip(lines, balance.values(), strict=True)]
    return (
        '<section id="classes" tabindex="-1"><h2>Classes by part</h2>\n<div class=wide tabindex=0>'
        f"{_table(['', *names, 'all'], sums)}</div></section>\n"
    )


def _percent(row: Mapping[str, int], name: str) -> str:
    return f"{100 * row[name] / max(1, sum(row.values())):.1f} %"


def _made(result: Mapping[str, Any]) -> str:
    votes, judge, near = result["votes"], result["checkpoint"], result["config"]["near"]
    facts = {
        "command": result["command"],
        "commit": str(result["commit"]),
        "digest of the data": result["data"]["digest"],
        "votes": f"{votes['path']} ({votes['digest']})" if votes else "none",
        "checkpoint": f"{judge['path']}, epoch {' and '.join(str(e + 1) for e in judge['epochs'])}"
        if judge
        else "none",
        "near": f"hashes of 64 bits differ in at most {near['bits']}, pixels correlate at least {near['correlation']}",
        "versions": ", ".join(f"{name} {number}" for name, number in result["versions"].items()),
    }
    lines = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
    return f'<section id="made" tabindex="-1"><h2>How this was made</h2><dl>{lines}</dl></section>\n'


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    columns = "".join(f"<th scope=col>{escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr><th scope=row>{escape(line[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in line[1:])}</tr>"
        for line in lines
    )
    return f"<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"
