"""Entry points of the verbs: compose the config with Hydra, report users' mistakes in one message."""

import contextlib
import errno
import functools
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from emotion.config import help, overrides, paths, resume, untrusted
from emotion.config.compose import CONF, compose
from emotion.config.instantiate import allow_plugins
from emotion.config.ranges import check_ranges
from emotion.errors import UserError, first_line, require_extra
from emotion.io.atomic import WriteError, writing
from emotion.runtime.announce import announce_torch
from emotion.runtime.signals import handle_signals

Result = TypeVar("Result")

warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore")
"""conf/hydra/launcher overrides plugins' configs of the same name, of which Hydra warns."""

CHOOSE_FOLDER = "Choose a writable folder: hydra.run.dir=FOLDER, output=FOLDER or csv=FILE."
WRITE_ADVICE = {
    errno.ENOSPC: "Free some space; no file is left half-written.",
    errno.EDQUOT: "Your quota is used up; no file is left half-written.",
    errno.EFBIG: "The system does not allow files of that size; none is left half-written.",
    errno.EROFS: CHOOSE_FOLDER,
    errno.EACCES: CHOOSE_FOLDER,
    errno.EPERM: CHOOSE_FOLDER,
    errno.EEXIST: "A file has the folder's name; choose another folder: hydra.run.dir=FOLDER.",
    errno.ENAMETOOLONG: "Runs are named after swept settings, results after sources; sweep over fewer, or rename them.",
    errno.ENOTDIR: CHOOSE_FOLDER,
    errno.EISDIR: "It is a folder; name a file.",
    errno.ENOENT: CHOOSE_FOLDER,  # of a folder that cannot be made, as in /proc
}
READ_ADVICE = {errno.EACCES: "Check its permissions.", errno.EPERM: "Check its permissions."}
ONLY_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors that reading does not cause, so that those of libraries are of writing, too."""
OVERRIDE = re.compile(r"\+{0,2}(?P<root>\w+)(?P<below>[\w.@/]*)=")
OPTIONS_WITH_VALUE = (
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp"),
    *("--config-name", "-cn", "--config-dir", "-cd", "--info", "-i", "--experimental-rerun"),
)
MULTIRUN = {"-m", "--multirun"}
LOGGERS = {"mlflow", "wandb"}
"""Loggers that need the extra and the package of the same name."""


def verb(
    name: str,
    positional: str | None = None,
    *,
    uses_torch: bool = False,
    check: Callable[[DictConfig], None] = lambda cfg: None,
) -> Callable[[Callable[[DictConfig], Result]], Callable[[], None]]:
    """Turn a function of a config into the entry point `python -m emotion.<name>`, composed from conf/<name>.yaml.

    Arguments without a key are values of the setting `positional`; several form a list. Paths are taken literally.
    `check` raises UserError for a config that the verb cannot run. With `uses_torch`, a line then announces that the
    libraries are loading.
    Exit status: 0 success, 2 user error (one message, no traceback), 130 Ctrl-C, 143 SIGTERM. In a sweep (-m) a job's
    error is raised, so that the other jobs run before it is reported.
    """

    def decorate(task: Callable[[DictConfig], Result]) -> Callable[[], None]:
        @functools.wraps(task)
        def job(cfg: DictConfig) -> Result:
            _silence_libraries()
            reporting = _name_files() if is_sweep_job() else report_errors(name)
            with handle_signals(), reporting, _without_empty_folder():
                if not is_sweep_job():  # which checks its settings itself, and prints its own lines
                    given = HydraConfig.get().overrides
                    check_values(name, cfg, given.task, given.hydra)
                    check(cfg)
                    if uses_torch:
                        announce_torch()
                return task(cfg)

        run_hydra: Callable[[], None] = hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(job)

        @functools.wraps(task)
        def entry() -> None:
            os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise errors instead of printing them
            with report_errors(name):
                if text := help.help_or_version(name, command_line()):
                    print(text, flush=True)
                    return
                overrides.check_dashes(name, command_line())
                take_plugins()
                _join_bare_arguments(name, positional)
                quote_paths(name)
                overrides.check_additions(name, command_line())
                try:
                    untrusted.check_command(name, command_line())
                    with writing():  # what Hydra writes; the job names its own files
                        run_hydra()
                except (HydraException, ValueError) as error:
                    if message := overrides.explain(name, command_line(), error):
                        raise UserError(message) from error
                    raise

        return entry

    return decorate


def check_values(name: str, cfg: DictConfig, arguments: Sequence[str], of_hydra: Sequence[str] = ()) -> None:
    """Check values before the verb runs. Imports nothing slow. `of_hydra` holds the overrides of Hydra's own settings.

    Raises:
        UserError: A value has the wrong type, `output=` names a file or, for `train` and `bench`, a number is out of
            range or the package of a logger is not installed.
    """
    overrides.check_types(name, arguments, cfg, of_hydra)
    paths.check_output_folder(cfg.get("output"))
    if name in ("train", "bench"):
        check_ranges(OmegaConf.to_container(cfg))  # type: ignore[arg-type]
        for logger in LOGGERS & set(cfg.get("logger") or ()):
            require_extra(f"logger={logger}", logger, logger)


def command_line() -> list[str]:
    """Return the arguments of the verb."""
    return sys.argv[1:]


def set_command_line(arguments: Sequence[str]) -> None:
    """Replace the arguments that Hydra, and Lightning for further processes, will read."""
    sys.argv = [sys.argv[0], *arguments]


def is_sweep_job() -> bool:
    """Return whether the running verb is one job of several (-m)."""
    return HydraConfig.get().mode is RunMode.MULTIRUN


def is_sweep_command() -> bool:
    """Return whether the command line requests a sweep, and not for help."""
    arguments = command_line()
    is_sweep = any(argument in MULTIRUN or argument.startswith("sweep=") for argument in arguments)
    return is_sweep and help.help_or_version("train", arguments) is None


def take_plugins() -> None:
    """Take `plugins=[MODULE,MODULE]` from the command line, the only place it is allowed: a config may name none."""
    given = [argument for argument in command_line() if argument.startswith("plugins=")]
    set_command_line([argument for argument in command_line() if argument not in given])
    for argument in given:
        allow_plugins([name.strip() for name in argument.partition("=")[2].strip("[]'\"").split(",") if name.strip()])


@contextlib.contextmanager
def report_errors(name: str = "train") -> Iterator[None]:
    """Print a user's error in the verb `name` as one message and exit; errors of the program keep their traceback."""
    try:
        with _name_files():
            yield
    except UserError as error:
        _fail(str(error), 2)
    except MissingMandatoryValue as error:
        example = help.example(name, error.full_key or "")
        advice = f"for example: {example}" if example else "--cfg job lists every setting, conf/ explains them."
        _fail(f"{error.full_key}= is missing; {advice}", 2)
    except OmegaConfBaseException as error:
        _fail(f"config: {first_line(error)}", 2)
    except HydraException as error:
        _fail("\n".join(dict.fromkeys((str(error), str(error.__cause__ or error)))), 2)
    except BrokenPipeError:  # the reader of the output, such as head, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (KeyboardInterrupt, SystemExit) as stopped:
        if isinstance(stopped, SystemExit) and not isinstance(stopped.__context__, KeyboardInterrupt):
            raise
        _fail("stopped by Ctrl-C.", 128 + signal.SIGINT)  # Lightning turns it into exit status 1


@contextlib.contextmanager
def _name_files() -> Iterator[None]:
    """Raise UserError for a file or folder that cannot be written or read."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        is_write = isinstance(error, WriteError) or error.errno in ONLY_WRITING
        if not error.errno or not (is_write or error.filename):
            raise
        action, path = "write" if is_write else "read", f" {error.filename}" if error.filename else ""
        advice = WRITE_ADVICE.get(error.errno, "") if is_write else READ_ADVICE.get(error.errno, "")
        raise UserError(f"cannot {action}{path}: {os.strerror(error.errno).lower()}. {advice}".strip()) from error


def quote_paths(name: str) -> None:
    """Take the paths on the command line of a verb literally; expand `~` in them and in this package's variables."""
    for variable in {"EMOTION_DATA", "EMOTION_CACHE"} & os.environ.keys():
        os.environ[variable] = os.path.expanduser(os.environ[variable])
    set_command_line(paths.quote_paths(name, command_line(), is_sweep=is_sweep_command()))


def resume_in_place() -> None:
    """Make `resume=RUN` on the command line use RUN's stored config and folder."""
    with report_errors():
        take_plugins()
        quote_paths("train")
        set_command_line(resume.use_stored_config(command_line()))


def _join_bare_arguments(name: str, positional: str | None) -> None:
    """Replace arguments without a key, such as `RUN RUN`, by `positional=[RUN,RUN]`."""
    bare: list[str] = []
    rest: list[str] = []
    for argument in command_line():
        is_value = bool(rest) and rest[-1] in OPTIONS_WITH_VALUE
        (rest if is_value or _has_key(name, argument) else bare).append(argument)
    if not bare:
        return
    if positional is None:
        settings = f"expected settings: python -m emotion.{name} KEY=VALUE"
        resume = f"; to continue a run: resume={bare[0]}" if name == "train" and paths.exists(bare[0]) else ""
        raise UserError(f"{' '.join(bare)}: {settings}{resume}. --help lists them.")
    if given := [argument for argument in rest if argument.lstrip("+").startswith(f"{positional}=")]:
        raise UserError(f"found {' '.join(bare)} and {given[0]}; expected one of them, as both name {positional}=.")
    set_command_line([*rest, f"{positional}={paths.quote_list(bare)}"])


def _has_key(name: str, argument: str) -> bool:
    """Return whether an argument is an option or a setting, not a path such as `~/a`, `-` or an existing `a=b.jpg`."""
    if argument[:1] in ("-", "~"):
        return argument != "-" and not argument.startswith("~/")
    match = OVERRIDE.match(argument)
    if match is None or match["root"] == "hydra":
        return match is not None
    if "/" in match["below"]:
        return (CONF / match["root"]).is_dir() and not paths.exists(argument)
    return not paths.exists(argument) or match["root"] in compose(name)


@contextlib.contextmanager
def _without_empty_folder() -> Iterator[None]:
    """Remove the folder that Hydra made for the task, and the folder above it, if they are empty at the end."""
    try:
        yield
    finally:
        folder = Path(HydraConfig.get().runtime.output_dir)
        if folder != Path.cwd():  # for a command that writes no files
            for empty in (folder, folder.parent):
                with contextlib.suppress(OSError):  # not empty, or removed already
                    empty.rmdir()


def _fail(message: str, status: int) -> NoReturn:
    if sys.stdout:  # closed by >&-
        sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _silence_libraries() -> None:
    """Hide warnings of libraries that concern programmers, and torch's note on a CUDA compiler without a device.

    Others are printed without the line of code that they come from.
    """
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    for category in (UserWarning, DeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category)
