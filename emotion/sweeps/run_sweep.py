"""A sweep from its command to its report."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable

from emotion.cli import one_message
from emotion.reporting.text import near
from emotion.runtime.signals import ending
from emotion.sweeps.sweep import SWEEP, Sweep, check, note, of_command_line


def run_sweep(main: Callable[[], None]) -> None:
    """Run what the command line asks for by `main`, say what became of it, and exit: status 1 if a run is missing."""
    sweep = of_command_line()
    if sweep is None:
        return main()
    with one_message():
        from emotion.sweeps import launchers

        launchers.check(sys.argv, search=sweep.study is not None)
        check(sweep)
        if sweep.study:
            from emotion.sweeps import optuna_study

            optuna_study.check(sweep.study)
            optuna_study.opened(sweep.study, sweep.folder)
        note(sweep)
    goes_on = ", which the same command began: what is finished there is not run again" if sweep.went_before else ""
    print(f"sweep of {sweep.size} runs in {near(sweep.folder)}{goes_on}", flush=True)
    started = time.time()
    if any(argument.startswith("hydra/launcher=submitit") for argument in sys.argv):
        print(f"what the jobs say: {near(sweep.folder) / launchers.JOBS}/*/*_log.out", flush=True)
    try:
        with ending():
            main()
    except SystemExit as ended:
        if ended.code:
            _forget_if_empty(sweep)
            if ended.code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
                print("The same command goes on with the sweep.", file=sys.stderr)
            raise
    except Exception as error:
        with one_message():
            launchers.outlive(error, sweep, started)
    from emotion.sweeps import report

    with one_message():
        sys.exit(0 if report.write(sweep) else 1)


def _forget_if_empty(sweep: Sweep) -> None:
    """A sweep that was refused before its first run leaves nothing."""
    left = {path.name for path in sweep.folder.iterdir()} if sweep.folder.is_dir() else set()
    if left <= {SWEEP, "multirun.yaml"}:
        for name in left:
            (sweep.folder / name).unlink()
        with contextlib.suppress(OSError):  # other sweeps lie above
            sweep.folder.rmdir()
            sweep.folder.parent.rmdir()
