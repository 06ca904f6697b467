"""How a verb meets the command line: Hydra composes its config, a user's mistake ends in one message."""

import contextlib
import errno
import functools
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from emotion.config import untrusted
from emotion.config.compose import CONF, quote
from emotion.errors import UserError
from emotion.runtime.signals import handle_signals

Result = TypeVar("Result")


warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore")
"""conf/hydra/launcher holds every setting of a plugin's of the same name, which Hydra checks it by and warns of."""
TRACEBACKS = "HYDRA_FULL_ERROR"
OF_THE_DISK = {
    errno.ENOSPC: "Free some space; what was there before is as it was.",
    errno.EDQUOT: "The quota is used up; what was there before is as it was.",
    errno.EFBIG: "Files of that size are not allowed here; what was there before is as it was.",
    errno.EROFS: "Choose a folder that can be written to: hydra.run.dir=FOLDER.",
    errno.EACCES: "Choose a folder that can be written to: hydra.run.dir=FOLDER.",
    errno.EPERM: "Choose a folder that can be written to: hydra.run.dir=FOLDER.",
    errno.EEXIST: "A file is in the folder's place; choose another: hydra.run.dir=FOLDER.",
    errno.ENAMETOOLONG: "A run's folder is named by what it sweeps over; sweep over less, or fewer at a time.",
    errno.ENOTDIR: "Choose another folder: hydra.run.dir=FOLDER.",
}
OVERRIDE = re.compile(r"\+{0,2}(hydra/)?[\w.@]+=")
OPTIONS_WITH_A_VALUE = (
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp"),
    *("--config-name", "-cn", "--config-dir", "-cd", "--experimental-rerun"),
)
MULTIRUN = {"-m", "--multirun"}
CHANGED_ON_RESUMING = (
    "trainer.",
    "callbacks.",
    "logger.",
    "compile.",
    "tta=",
    "demo_minutes=",
    "distillation.teacher=",
)


def verb(name: str) -> Callable[[Callable[[DictConfig], Result]], Callable[[], None]]:
    """Makes a function of a config the entry point `python -m emotion.<name>`, composed from conf/<name>.yaml.

    Exit status: 0 done, 2 the input is at fault (one message, no traceback), 130 Ctrl-C, 143 SIGTERM. In a sweep (-m) a
    job's mistake is an exception, which leaves the other jobs to be run and ends in its message when they are through.
    """

    def decorate(task: Callable[[DictConfig], Result]) -> Callable[[], None]:
        @functools.wraps(task)
        def job(cfg: DictConfig) -> Result:
            _quieten()
            with handle_signals(), contextlib.nullcontext() if is_sweep_job() else report_errors():
                return _leaving_no_empty_folder(task, cfg)

        composed: Callable[[], None] = hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(job)

        @functools.wraps(task)
        def entry() -> None:
            with report_errors(), _raising_what_goes_wrong():
                untrusted.check_command(sys.argv[1:])
                composed()

        return entry

    return decorate


def is_sweep_job() -> bool:
    """Whether the verb under way is one job of several (-m)."""
    return HydraConfig.get().mode is RunMode.MULTIRUN


@contextlib.contextmanager
def _raising_what_goes_wrong() -> Iterator[None]:
    """Have Hydra raise what it would print; what it wants to be asked for a traceback is whose message is wanted."""
    asked = os.environ.get(TRACEBACKS)
    os.environ[TRACEBACKS] = "1"
    try:
        yield
    finally:
        if asked is None:
            del os.environ[TRACEBACKS]


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """What a person can mend ends in a message and a status; what only we can, in a traceback."""
    try:
        yield
    except UserError as error:
        _fail(str(error), 2)
    except MissingMandatoryValue as error:
        _fail(f"{error.full_key}= is not given; --cfg job shows every setting, conf/ what each may be.", 2)
    except OmegaConfBaseException as error:
        _fail(f"config: {str(error).splitlines()[0]}", 2)
    except HydraException as error:
        _fail("\n".join(dict.fromkeys((str(error), str(error.__cause__ or error)))), 2)
    except BrokenPipeError:  # whoever read the output, such as head, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        where = f" {error.filename}:" if error.filename else ""
        _fail(f"cannot write{where} {os.strerror(error.errno).lower()}. {OF_THE_DISK[error.errno]}", 2)
    except KeyboardInterrupt:
        _fail("stopped by Ctrl-C.", 128 + signal.SIGINT)


def resume_in_place() -> None:
    """Make `resume=RUN` on the command line compose RUN's own stored config and work in RUN.

    Besides, only what does not change the run itself can be given: the rest is in the checkpoint and would be ignored.
    """
    folders = [argument.removeprefix("resume=") for argument in sys.argv[1:] if argument.startswith("resume=")]
    if "--config-path" in sys.argv and os.environ.get("LOCAL_RANK", "0") != "0":  # the first process started it,
        sys.argv[1:] = [argument for argument in sys.argv[1:] if argument[:1] not in ("+", "~")]  # and stored them
    if not folders or folders[-1] == "auto" or "--config-path" in sys.argv:
        return
    run = Path(folders[-1].strip("'\"")).absolute()
    if not (run / ".hydra" / "config.yaml").is_file():
        _fail(f"{folders[-1]} is not the folder of a run: it has no .hydra/config.yaml. Give outputs/NAME/TIME.", 2)
    with report_errors():
        untrusted.check_run_config(run / ".hydra" / "config.yaml")
    given = [argument for argument in sys.argv[1:] if not argument.startswith("resume=")]
    if refused := [argument for argument in given if not argument.lstrip("+~").startswith(CHANGED_ON_RESUMING)]:
        _fail(
            f"resume={folders[-1]} goes on as the run began and cannot take {' '.join(refused)}; "
            f"expected nothing else, or settings that begin with {' '.join(CHANGED_ON_RESUMING)}.",
            2,
        )
    folder = quote(str(run))
    place = [f"hydra.run.dir={folder}", "hydra/job_logging=none", "hydra.output_subdir=null", f"resume={folder}"]
    sys.argv[1:] = ["--config-path", str(run / ".hydra"), "--config-name", "config", *given, *place]


def join_bare_arguments(key: str) -> None:
    """Make what is no override on the command line, such as `RUN RUN`, one list: `key=[RUN,RUN]`."""
    bare: list[str] = []
    rest: list[str] = []
    for argument in sys.argv[1:]:
        of_an_option = bool(rest) and rest[-1] in OPTIONS_WITH_A_VALUE
        own = of_an_option or argument[:1] in "-~" or OVERRIDE.match(argument)
        (rest if own else bare).append(argument)
    if bare:
        sys.argv[1:] = [*rest, f"{key}=[{','.join(map(quote, bare))}]"]


def _leaving_no_empty_folder(task: Callable[[DictConfig], Result], cfg: DictConfig) -> Result:
    """Hydra makes a folder for every command; one that nothing was written to goes again."""
    try:
        return task(cfg)
    finally:
        folder = Path(HydraConfig.get().runtime.output_dir)
        if folder != Path.cwd():  # which a command that is to leave nothing names
            with contextlib.suppress(OSError):  # it, or the one above, holds something
                folder.rmdir()
                folder.parent.rmdir()


def _fail(message: str, status: int) -> NoReturn:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _quieten() -> None:
    """Libraries' advice to programmers is not for the people who run a verb."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"lightning\.")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
