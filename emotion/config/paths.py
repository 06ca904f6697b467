"""Settings that hold paths: their values on the command line are taken literally, not parsed by Hydra's grammar."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from emotion.config.compose import escape, quote
from emotion.errors import UserError
from emotion.io.atomic import make_folder

PATH_SETTING = re.compile(
    r"where|compare_with|resume|runs|source|images|explanations|records|readme|csv|runtime|output"
    r"|distillation\.teacher|model\.weights|(.+\.)?detector\.model|split\.exclude|study\.storage|hydra\.sweep\.subdir"
    r"|data\.(.+\.)?(train|val|test|label_map)|data\.required_paths\.\w+"
    r"|(.+[._])?(checkpoint|path|root|votes|dir|dirpath|filename|file|folder|uri)"
)
"""Names of the settings that hold a path or a list of paths, in any verb; and the comparison of `runs`."""
LISTS = re.compile(r"where|checkpoint|compare_with|runs|source|images|explanations|distillation\.teacher|data\..+")
"""Names of those that may be a list."""
NOT_PATHS = {"bench": ("runs", "images")}  # numbers of them

OVERRIDE = re.compile(r"\+{0,2}(?P<name>[\w.@/]+)=(?P<value>.*)", re.DOTALL)
IN_HYDRA = re.compile(r"null|\?\?\?|'.*'|\".*\"", re.DOTALL)
"""Values that keep their meaning in Hydra: null and quoted text."""
PLAIN = re.compile(r"(?!(true|false|inf|nan)$)(\.\.?/)*[a-z_/][\w./-]*", re.ASCII | re.IGNORECASE)
"""Paths that Hydra reads literally; they stay unquoted, since the folders of a sweep are named after its settings."""
LIST_ITEM = re.compile(r"\s*'(?:\\.|[^'\\])*'\s*(?=,|$)|\s*\"(?:\\.|[^\"\\])*\"\s*(?=,|$)|[^,]+")
OUTPUT_SUFFIXES = frozenset(".csv .html .jpeg .jpg .json .jsonl .md .mp4 .onnx .pdf .png .safetensors .tex".split())
"""Of the files that verbs write into their folder `output`."""
IN_SWEEP = re.compile(r"(choice|glob|shuffle|sort|tag)\(.*\)|.*\],\[.*")
"""Values that keep their meaning in a sweep."""


def is_path_setting(verb: str, name: str) -> bool:
    """Return whether a verb's setting, by its dotted name, holds a path or a list of paths."""
    return PATH_SETTING.fullmatch(name) is not None and name not in NOT_PATHS.get(verb, ())


def quote_paths(verb: str, arguments: Sequence[str], *, is_sweep: bool) -> list[str]:
    """Return a command line with the values of path settings quoted for Hydra where necessary, and `~` expanded.

    `[A,B]` is a list of paths. A comma in a list, and in a sweep any comma, separates paths unless it is part of one
    that exists. Quoted values are left as they are, so that quoting twice changes nothing.
    """
    return [_quote_argument(verb, argument, is_sweep=is_sweep) for argument in arguments]


def quote_list(paths: Sequence[str]) -> str:
    """Quote paths as a value for Hydra, several as a list, with `~` expanded; `${` is literal in paths that exist."""
    paths = [escape(path) if exists(path) else path for path in paths]
    expanded = [path if IN_HYDRA.fullmatch(path) else os.path.expanduser(path) for path in paths]
    quoted = [path if (PLAIN.fullmatch(path) or IN_HYDRA.fullmatch(path)) else quote(path) for path in expanded]
    return quoted[0] if len(quoted) == 1 else f"[{','.join(quoted)}]"


def check_output_folder(output: object) -> None:
    """Check the setting `output` of a verb, which is a folder, `-` for standard output, or null.

    Raises:
        UserError: It is a file or is named like one.
        OSError: It cannot be made.
    """
    path = Path(str(output))
    if path.is_file() or (path.suffix.lower() in OUTPUT_SUFFIXES and not path.is_dir()):
        raise UserError(f"output={output} names a file; expected a folder, such as output={path.with_suffix('')}.")
    if output not in (None, "-"):
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        make_folder(path)
        for folder in new:  # until there is something to write
            folder.rmdir()


def exists(path: str) -> bool:
    """Return whether there is a file or folder of that name, `~` expanded."""
    try:
        return Path(os.path.expanduser(path)).exists()
    except (OSError, ValueError):  # too long, or a null byte
        return False


def _quote_argument(verb: str, argument: str, *, is_sweep: bool) -> str:
    match = OVERRIDE.fullmatch(argument)
    if match is None or not is_path_setting(verb, match["name"]):
        return argument
    key, value = argument[: match.start("value")], match["value"]
    is_sweep = is_sweep and not match["name"].startswith("hydra.")
    if value and exists(value):
        return key + quote_list([value])
    if is_sweep and IN_SWEEP.fullmatch(value):
        return argument
    if value.startswith("[") and value.endswith("]") and LISTS.fullmatch(match["name"]):
        return f"{key}[{','.join(quote_list([path]) for path in _split(value[1:-1]))}]"
    return key + ",".join(quote_list([path]) for path in (_split(value) if is_sweep else [value]))


def _split(text: str) -> Iterator[str]:
    """Yield the paths of a list; where a comma may be part of a path, the longest one that exists."""
    parts = LIST_ITEM.findall(text)
    while parts:
        lengths = range(len(parts), 1, -1)
        length = next((n for n in lengths if exists(",".join(parts[:n]).strip())), 1)
        yield ",".join(parts[:length]).strip()
        parts = parts[length:]
