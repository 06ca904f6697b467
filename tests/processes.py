"""Verbs in processes of their own, as people type them: forked from a server that has imported it all."""

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

import emotion.sweeps.job  # noqa: F401  what a verb imports when it comes to it, so that each process need not

torch.set_num_threads(1)
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.processes"])


class Verb(NamedTuple):
    """A verb under way."""

    process: ForkServerProcess
    told: Connection  # readable when what was asked for happens
    log: Path

    def ended(self, seconds: float = 120) -> int:
        """Its exit status, as a shell has it."""
        self.process.join(seconds)
        status = self.process.exitcode
        assert status is not None, f"still running after {seconds} s: {self.log.read_text()[-500:]}"
        return 128 - status if status < 0 else status


class Moment(NamedTuple):
    """An audited event (https://docs.python.org/3/library/audit_events.html), counted where its argument holds `path`.

    The process tells of it; if it `waits`, it goes on when it is told something.
    """

    event: str
    path: str
    number: int = 1
    waits: bool = False


def begin(
    verb: str, arguments: Sequence[str], log: Path, moment: Moment | None = None, errors: Path | None = None
) -> Verb:
    """Start `python -m emotion.<verb> <arguments>` here, and have it tell of a moment; `log` is of both its outputs.

    With `errors` its standard error goes there.
    """
    told, telling = context.Pipe()
    asked = (verb, list(arguments), dict(os.environ), str(log), str(errors or log), telling, moment)
    process = context.Process(target=_run, args=asked)
    process.start()
    telling.close()
    return Verb(process, told, log)


class Ended(NamedTuple):
    """What a verb came to."""

    status: int
    out: str
    err: str


def typed(verb: str, *arguments: str) -> Ended:
    """`python -m emotion.<verb> <arguments>` here, to its end."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        status = begin(verb, arguments, out, errors=err).ended()
        return Ended(status, out.read_text(), err.read_text())


def _run(
    verb: str,
    arguments: list[str],
    environment: dict[str, str],
    log: str,
    errors: str,
    telling: Connection,
    moment: Moment | None,
) -> None:
    os.environ |= environment
    for number, path in ((1, log), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv = [f"emotion.{verb}", *arguments]
    sys.orig_argv = ["python", "-m", f"emotion.{verb}", *arguments]
    if moment:
        sys.addaudithook(_teller(telling, moment))
    runpy.run_module(f"emotion.{verb}", run_name="__main__", alter_sys=True)


def _teller(telling: Connection, moment: Moment) -> Callable[[str, tuple[object, ...]], None]:
    left = [moment.number]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == moment.event and left[0] and moment.path in str(arguments[0]):
            left[0] -= 1
            if not left[0]:
                telling.send(event)
                if moment.waits:
                    telling.recv()

    return hook
