"""Help of the verbs, read from the comments of conf/<verb>.yaml."""

import ast
import re
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from textwrap import wrap

from emotion.config.compose import CONF, PACKAGE, VERBS, choices, searched_folders

NAME_WIDTH, MAX_WIDTH = 24, 100
DEFAULT = re.compile(r"- (?P<group>[\w/]+): (?P<choice>\w+)(?:\s+# (?P<comment>.*))?")
SETTING = re.compile(r"(?P<indent> *)(?P<name>\w+):(?: (?P<value>[^#].*?))??(?:\s+# (?P<comment>.*))?$")


def help_or_version(verb: str, arguments: list[str]) -> str | None:
    """Return the text that --help or --version among the arguments requests, or None."""
    if {"--help", "-h"} & set(arguments):
        return verb_help(verb, arguments)
    return f"emotion {version('emotion')}" if "--version" in arguments else None


def overview() -> str:
    """Return the verbs and their purposes."""
    rows = "".join(_row(verb, _purpose(verb)) for verb in VERBS)
    return f"python -m emotion.VERB KEY=VALUE ... (or: emotion VERB KEY=VALUE ...)\n\n{rows}\nVERB --help explains it."


def verb_help(verb: str, arguments: Sequence[str] = ()) -> str:
    """Return purpose, examples, settings and config groups of a verb, with the settings of the choices in use."""
    examples, defaults, settings = _parts(verb)
    groups = _groups(defaults, arguments)
    text = f"{_purpose(verb)}\n\nExamples:\n{examples}\nSettings, KEY=VALUE:\n"
    text += "".join(_row(name, comment) for name, comment in _settings(settings + _parts("base")[2]))
    if groups:
        text += f"\nConfig groups, GROUP=CHOICE (default first):\n{groups}"
    if rows := _choice_settings(defaults, arguments):
        text += f"\nSettings of the choices in use; GROUP=CHOICE --help shows those of another:\n{rows}"
    if "- train\n" in defaults:
        text += "\nThis verb also takes the settings and groups of train: python -m emotion.train --help\n"
    return f"{text}\n--cfg job prints every setting as composed, without running anything."


def example(verb: str, key: str) -> str | None:
    """Return the first example of a verb that gives the setting `key`, None without one."""
    lines = (line.strip().partition("  ")[0] for line in _parts(verb)[0].splitlines())
    return next((line for line in lines if f" {key}=" in line), None)


def _parts(verb: str) -> tuple[str, str, str]:
    """Return the examples, the defaults and the settings of conf/<verb>.yaml."""
    header, _, body = (CONF / f"{verb}.yaml").read_text(encoding="utf-8").partition("defaults:\n")
    defaults, _, settings = body.partition("\n\n")
    examples = "".join(f"  {line.removeprefix('# ')}\n" for line in header.splitlines())
    return examples, defaults, settings.partition("hydra:\n")[0]


def _purpose(verb: str) -> str:
    docstring = ast.get_docstring(ast.parse((PACKAGE / f"{verb}.py").read_text(encoding="utf-8"))) or ""
    return f"{docstring.splitlines()[0].partition(': python')[0].rstrip('.')}."


def _settings(text: str) -> Iterator[tuple[str, str]]:
    """Yield each setting as on the command line, and its comment."""
    found: list[tuple[str, list[str]]] = []
    parent = ""
    for line in text.splitlines():
        if match := SETTING.match(line):
            name, value, comment = match["name"], match["value"], match["comment"]
            parent = f"{name}." if value is None else parent if match["indent"] else ""
            if value is None and not comment:
                continue
            shown = "" if value is None or value == "???" or "${" in value else value
            found.append((f"{parent * (value is not None)}{name}={shown}", [comment or ""]))
        elif (more := line.strip()).startswith("# ") and found:
            found[-1][1].append(more.removeprefix("# "))
    yield from ((name, " ".join(comments)) for name, comments in found)


def _groups(defaults: str, arguments: Sequence[str]) -> str:
    rows = ""
    for match in DEFAULT.finditer(defaults):
        first = [] if match["choice"] == "null" else [match["choice"]]
        others = [choice for choice in choices(match["group"], arguments) if choice != match["choice"]]
        comment = f" ({match['comment'].replace('null: ', 'default: ')})" if match["comment"] else ""
        rows += _row(match["group"], f"{', '.join([*first, *others])}{comment}")
    return rows


def _choice_settings(defaults: str, arguments: Sequence[str]) -> str:
    """Return the settings of each group's default choice, or of the one among the arguments; a recipe's come last."""
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    rows: dict[str, tuple[str, str]] = {}  # by name: the whole setting and its comment
    folders = [CONF, *map(Path, searched_folders(arguments))]
    for group, choice in ((match["group"], match["choice"]) for match in DEFAULT.finditer(defaults)):
        paths = [folder / group / f"{given.get(group, choice)}.yaml" for folder in folders]
        path = next((path for path in paths if path.is_file()), None)
        if group != "labels" and path:
            text = path.read_text(encoding="utf-8")
            prefix = "" if text.startswith("# @package _global_") else f"{group.replace('/', '.')}."
            for setting, comment in _settings(text):
                if not setting.startswith("_") and "._" not in setting:
                    name = (prefix + setting).partition("=")[0]
                    _, earlier = rows.pop(name, ("", ""))
                    rows[name] = prefix + setting, comment or earlier
    return "".join(_row(*row) for row in rows.values())


def _row(name: str, text: str) -> str:
    """Return a name and its wrapped text in two columns, as wide as the terminal."""
    width = min(shutil.get_terminal_size().columns, MAX_WIDTH) - NAME_WIDTH - 4
    lines = wrap(text, width, break_on_hyphens=False)
    if not lines:
        return f"  {name}\n"
    if len(name) > NAME_WIDTH:
        return "\n".join([f"  {name}", *(f"{'':{NAME_WIDTH + 4}}{line}" for line in lines)]) + "\n"
    return "".join(f"  {name if i == 0 else '':{NAME_WIDTH}}  {line}".rstrip() + "\n" for i, line in enumerate(lines))
