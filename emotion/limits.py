"""What a text, and the settings in it, may cost before they are known to be ours."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, AnyStr

from emotion.errors import UserError

MOST_TEXT = 4_000_000  # bytes of JSON and YAML; a run's record has 33,000
LONGEST_LINE = 1 << 20  # of a CSV file; a face of FER2013 takes 9,000
MOST_NODES, DEEPEST = 20_000, 60  # of settings, what is named twice counted twice; ours have hundreds
PLAIN = (str, int, float, type(None))


def text_of(path: Path, most: int = MOST_TEXT) -> str:
    """A text file's content.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than `most`, or not UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has {path.stat().st_size:,} bytes, expected at most {most:,}")
    return content.decode("utf-8-sig")


def json_of(path: Path, most: int = MOST_TEXT) -> object:
    """A JSON file's content.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than `most`, no JSON, or nested deeper than any of ours.
    """
    return parsed(text_of(path, most))


def parsed(text: str) -> object:
    """Raises ValueError where a text is no JSON, or nested deeper than any of ours."""
    try:
        found: object = json.loads(text)
        return found
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def lines(file: IO[AnyStr]) -> Iterator[AnyStr]:
    """A file's lines, none longer than `LONGEST_LINE`: what is left of one comes as the next."""
    while line := file.readline(LONGEST_LINE):
        yield line


def check_settings(path: Path, settings: object) -> None:
    """Refuse settings that are more than settings: of other types, too deep, or of parts that are named over and over.

    Raises:
        UserError: naming the file.
    """
    try:
        _count(settings, 0, {})
    except (TypeError, RecursionError) as error:
        raise UserError(f"{path} holds no settings of ours: {error}. Take a file that this package wrote.") from error


def _count(value: object, depth: int, counted: dict[int, int]) -> int:
    """How much there is in a value, what is named twice counted twice."""
    if isinstance(value, PLAIN):
        return 1
    if not isinstance(value, dict | list | tuple):
        raise TypeError(f"found {type(value).__name__}, expected numbers, texts, lists and mappings")
    if depth > DEEPEST:
        raise RecursionError(f"they have more than {DEEPEST} levels")
    if id(value) not in counted:
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        counted[id(value)] = 1 + sum(_count(item, depth + 1, counted) for item in inner)
    if counted[id(value)] > MOST_NODES:
        raise RecursionError(f"they have more than {MOST_NODES:,} parts")
    return counted[id(value)]
