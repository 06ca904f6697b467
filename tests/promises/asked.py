"""Several commands in one process of its own: what each answers, and the most memory that the process has had."""

import contextlib
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

from tests.processes import context
from tests.promises.memory import forget_peak, peak

Command = Sequence[str]
"""A verb and its arguments."""


class Answer(NamedTuple):
    """What became of a command."""

    status: int
    said: str
    megabytes: float  # the most that the process had meanwhile


def ask(commands: Sequence[Command]) -> list[Answer]:
    """What each of the commands answers, one after the other, in a process that has imported everything before."""
    told, telling = context.Pipe(duplex=False)
    process = context.Process(target=_answer_all, args=([list(command) for command in commands], telling))
    process.start()
    telling.close()
    try:
        return [Answer(*told.recv()) for _ in commands]
    finally:
        process.join()


def refused(answer: Answer) -> None:
    """Raises where a command was not refused in one message, without a traceback."""
    assert answer.status == 2, answer
    assert answer.said.count("error: ") == 1, answer
    assert "Traceback" not in answer.said, answer
    assert "Warning" not in answer.said, answer


def _answer_all(commands: list[list[str]], telling: Connection) -> None:
    for verb, *arguments in commands:
        sys.argv = [f"emotion.{verb}", *arguments]
        forget_peak(os.getpid())
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = _status(verb)
        telling.send((status, said.getvalue(), peak(os.getpid())))


def _status(verb: str) -> int:
    module = importlib.import_module(f"emotion.{verb}")
    try:
        getattr(module, "dispatch", module.main)()
    except SystemExit as ended:
        return int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
