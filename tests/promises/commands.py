"""Run several commands in one process, and measure the peak memory of each."""

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
from tests.promises.memory import peak, reset_peak

Command = Sequence[str]
"""A verb and its arguments."""


class Result(NamedTuple):
    """Exit status, output and peak memory of a command."""

    status: int
    output: str
    megabytes: float


def run_commands(commands: Sequence[Command]) -> list[Result]:
    """Run the commands one after the other in a process that has already imported everything."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_all, args=([list(command) for command in commands], sender))
    process.start()
    sender.close()
    try:
        return [Result(*receiver.recv()) for _ in commands]
    finally:
        process.join()


def assert_refused(result: Result) -> None:
    """Check that a command ended in one error message without a traceback."""
    assert result.status == 2, result
    assert result.output.count("error: ") == 1, result
    assert "Traceback" not in result.output, result
    assert "Warning" not in result.output, result


def _run_all(commands: list[list[str]], sender: Connection) -> None:
    for verb, *arguments in commands:
        sys.argv = [f"emotion.{verb}", *arguments]
        reset_peak(os.getpid())
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = _run(verb)
        sender.send((status, output.getvalue(), peak(os.getpid())))


def _run(verb: str) -> int:
    module = importlib.import_module(f"emotion.{verb}")
    try:
        getattr(module, "dispatch", module.main)()
    except SystemExit as error:
        return int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
