"""The one exception that means: the input is at fault, not the program."""

from collections.abc import Sequence


class UserError(Exception):
    """Something given is missing or wrong; the message says what was found, what was expected and what to do.

    Entry points print the message alone, without a traceback, and exit with status 2.
    """


def listing(lines: Sequence[str], shown: int = 20) -> str:
    """The first lines, each on a line of its own, and how many more there are: for the end of a message."""
    more = [f"and {len(lines) - shown} more"] if len(lines) > shown else []
    return "".join(f"\n  {line}" for line in [*lines[:shown], *more])
