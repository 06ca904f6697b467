"""Run verbs in processes of their own, forked from a server that has already imported everything."""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

import emotion.sweeps.job  # noqa: F401  so that the forked processes need not import it

torch.set_num_threads(1)
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.processes"])


class RunningVerb(NamedTuple):
    """A verb in a process; `pipe` becomes readable when the process reaches its moment."""

    process: ForkServerProcess
    pipe: Connection
    log: Path

    def wait(self, seconds: float = 120) -> int:
        """Return its exit status as a shell reports it."""
        self.process.join(seconds)
        status = self.process.exitcode
        assert status is not None, f"still running after {seconds} s: {self.log.read_text()[-500:]}"
        return 128 - status if status < 0 else status


class CompletedVerb(NamedTuple):
    """The exit status and the output of a verb."""

    status: int
    out: str
    err: str


class Moment(NamedTuple):
    """The `number`-th audit event (https://docs.python.org/3/library/audit_events.html) whose argument has `path`.

    If it `waits`, the process pauses there until something is sent to it.
    """

    event: str
    path: str
    number: int = 1
    waits: bool = False


def start_verb(
    verb: str, arguments: Sequence[str], log: Path, moment: Moment | None = None, errors: Path | None = None
) -> RunningVerb:
    """Start `python -m emotion.<verb> <arguments>` in this folder, with its output in `log`.

    Args:
        verb: Name of the verb.
        arguments: Its command line.
        log: File for standard output, and for standard error without `errors`.
        moment: When to report through the pipe.
        errors: File for standard error.
    """
    pipe, other_end = context.Pipe()
    arguments_of_run = (verb, list(arguments), dict(os.environ), str(log), str(errors or log), other_end, moment)
    process = context.Process(target=_run, args=arguments_of_run)
    process.start()
    other_end.close()
    return RunningVerb(process, pipe, log)


def run_verb(verb: str, *arguments: str) -> CompletedVerb:
    """Run `python -m emotion.<verb> <arguments>` in this folder to its end."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        status = start_verb(verb, arguments, out, errors=err).wait()
        return CompletedVerb(status, out.read_text(), err.read_text())


def _run(
    verb: str,
    arguments: list[str],
    environment: dict[str, str],
    log: str,
    errors: str,
    pipe: Connection,
    moment: Moment | None,
) -> None:
    os.environ |= environment
    for descriptor, path in ((1, log), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    sys.argv = [f"emotion.{verb}", *arguments]
    sys.orig_argv = ["python", "-m", f"emotion.{verb}", *arguments]
    if moment:
        sys.addaudithook(_reporter(pipe, moment))
    runpy.run_module(f"emotion.{verb}", run_name="__main__", alter_sys=True)


def _reporter(pipe: Connection, moment: Moment) -> Callable[[str, tuple[object, ...]], None]:
    remaining = [moment.number]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == moment.event and remaining[0] and moment.path in str(arguments[0]):
            remaining[0] -= 1
            if not remaining[0]:
                pipe.send(event)
                if moment.waits:
                    pipe.recv()

    return hook
