"""Run a sweep from its command to its report."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable

from emotion.cli import command_line, report_errors
from emotion.errors import counted
from emotion.reporting.text import relative_path
from emotion.runtime.announce import announce, announce_torch
from emotion.runtime.signals import handle_signals
from emotion.sweeps.sweep import SWEEP_FILE, Sweep, check_folder, parse_command_line, write_sweep_file
from emotion.training.first_run import announce_first_run


def run_sweep(main: Callable[[], None]) -> None:
    """Run the sweep of the command line with `main`, report, and exit: status 1 if a run is not finished."""
    from emotion.sweeps import launchers

    announce("reading the sweep", sys.stderr)
    with report_errors():
        launcher = launchers.require_launcher(command_line())  # without it, its configs are missing
        sweep = parse_command_line()
    if sweep is None:
        return main()
    with report_errors():
        launchers.check_launcher(launcher, command_line(), is_search=sweep.study is not None)
        check_folder(sweep)
        if sweep.study:
            from emotion.sweeps import optuna_study

            optuna_study.check_search_space(sweep.study)
            optuna_study.open_study(sweep.study, sweep.folder)
        write_sweep_file(sweep)
    folder = relative_path(sweep.folder)
    resumed = ", resumed: finished runs are not repeated" if sweep.is_resumed else ""
    print(f"sweep of {counted(sweep.size, 'run')} in {folder}{resumed}", flush=True)
    announce_first_run()
    started = time.time()
    if any(argument.startswith("hydra/launcher=submitit") for argument in command_line()):
        print(f"output of the jobs: {folder / launchers.JOBS}/*/*_log.out", flush=True)
    else:
        announce_torch()
    try:
        with handle_signals():
            main()
    except SystemExit as exit_:
        if exit_.code:
            _remove_if_empty(sweep)
            if exit_.code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
                print("The same command resumes the sweep.", file=sys.stderr)
            raise
    except Exception as error:
        with report_errors():
            launchers.wait_for_jobs(error, sweep, started)
    from emotion.sweeps.report import report_sweep

    with report_errors():
        sys.exit(0 if report_sweep(sweep) else 1)


def _remove_if_empty(sweep: Sweep) -> None:
    """Remove the folder of a sweep that failed before its first run."""
    files = {path.name for path in sweep.folder.iterdir()} if sweep.folder.is_dir() else set()
    if files <= {SWEEP_FILE, "multirun.yaml"}:
        for name in files:
            (sweep.folder / name).unlink()
        with contextlib.suppress(OSError):  # the parent has other sweeps
            sweep.folder.rmdir()
            sweep.folder.parent.rmdir()
