"""Train a classifier, evaluate its best epoch on test, write the run record: python -m emotion.train model=NAME."""

import shlex
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from emotion.cli import command_line, is_sweep_command, is_sweep_job, resume_in_place, verb
from emotion.config.instantiate import plugins_argument
from emotion.data.sources import check_data
from emotion.errors import UserError, counted
from emotion.reporting.text import relative_path
from emotion.training.first_run import announce_first_run, use_first_run_recipe


def train(cfg: DictConfig, run_dir: Path) -> float:
    """Train as configured in `run_dir` and return the best monitored score.

    Raises:
        UserError: A setting is wrong, or something is missing.
        Stopped: Ctrl-C or SIGTERM; a checkpoint to resume from is written.
    """
    from emotion.records.run_folder import lock_run, read_run, record_error
    from emotion.runtime.distributed import is_rank_zero
    from emotion.training import resume
    from emotion.training.preflight import preflight
    from emotion.training.run import finalize, fit, setup
    from emotion.training.setup import check_parts, resolve

    config = resolve(cfg, run_dir)
    rank_zero = is_rank_zero()
    with lock_run(run_dir) if rank_zero else nullcontext():
        if config.resume == "auto" and (existing := read_run(run_dir)).state == "finished":
            resume.check_recipe(existing.record, config)
            resume.check_files(existing.record, config)
            print(f"{run_dir}: finished after {counted(existing.record.epochs, 'epoch')}; nothing to do", flush=True)
            return float(existing.record.best["score"])
        config = resume.resolve_resume(config, run_dir, rank_zero=rank_zero)
        check_parts(config)
        if config.preflight.get("run"):
            return preflight(config)
        run = setup(config, cfg)
        if rank_zero:
            announce_first_run()
        with record_error(run_dir) if rank_zero else nullcontext():
            fit(run)
            return finalize(run)


@verb("train", uses_torch=True, check=check_data)
def main(cfg: DictConfig) -> float:
    """Train in the folder that Hydra created."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from emotion.callbacks.graceful_stop import requeue_on
    from emotion.checkpoints.locate import LAST_CHECKPOINT
    from emotion.errors import Pruned, Stopped
    from emotion.runtime.distributed import is_rank_zero

    run_dir = relative_path(Path(HydraConfig.get().runtime.output_dir))
    requeue_on(signal.SIGUSR1)
    try:
        if is_sweep_job():
            from emotion.sweeps import job

            return job.run_job(train, cfg, run_dir)
        return train(cfg, run_dir)
    except MisconfigurationException as error:
        raise UserError(f"trainer: {error}") from error
    except (UserError, Pruned) as error:
        if is_rank_zero():
            raise UserError(str(error)) from error
        sys.exit(0)  # rank 0 reports it; with another status Lightning would kill rank 0 first
    except (Stopped, KeyboardInterrupt, SystemExit, OSError) as stopped:
        if isinstance(stopped, Stopped) and not is_rank_zero():
            sys.exit(0)
        if (run_dir / LAST_CHECKPOINT).is_file() and not is_sweep_job():  # a sweep resumes its runs itself
            print(
                f"Resume with: python -m emotion.train {plugins_argument()}{shlex.quote(f'resume={run_dir}')}",
                file=sys.stderr,
            )
        if isinstance(stopped, Stopped):
            print(stopped, file=sys.stderr)
            sys.exit(128 + stopped.signum)
        if isinstance(stopped.__context__, KeyboardInterrupt):  # Lightning turns it into exit status 1
            raise KeyboardInterrupt from stopped
        raise


def dispatch() -> None:
    """Run one training, or a sweep and its report (status 1 if a run of the sweep failed)."""
    resume_in_place()
    use_first_run_recipe()
    if not is_sweep_command() and not any(argument.startswith("hydra/launcher=") for argument in command_line()):
        return main()
    from emotion.sweeps.run_sweep import run_sweep

    run_sweep(main)


if __name__ == "__main__":
    dispatch()
