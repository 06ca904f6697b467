"""What a sweep costs besides its epochs: python -m emotion.bench measure=sweeps [runs=1000].

One run of one batch is trained on drawn faces twice; its folder, so many times, is then listed and ranked.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from emotion.benchmarks.measurement import Line, Measured
from emotion.config.compose import compose, is_whole
from emotion.errors import UserError
from emotion.records import archive
from emotion.records.run_record import read_record

if TYPE_CHECKING:
    from emotion.records.run_folder import RunState


Settings = dict[str, Any]
SHORT = (
    "data=synthetic", "data.training=20", "trainer.max_epochs=1", "trainer.limit_train_batches=1", "compile.cpu=false",
)  # fmt: skip


def bench_sweeps(settings: Settings) -> Measured:
    """Seconds to compose a run, of a run besides its epochs, to list and to rank `runs` of them, and what one takes.

    Raises:
        UserError: no number of runs.
    """
    from emotion.records import run_folder
    from emotion.records.query import size
    from emotion.reporting import ranking

    if not is_whole(settings["runs"], 1):
        raise UserError(f"runs={settings['runs']}: expected a whole number from 1.")
    name = settings["name"]
    composed = []
    for seed in range(settings["rounds"] + 1):
        started = time.perf_counter()
        compose("train", f"seed={seed}")
        composed.append(time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as folder:
        one = _trained(Path(folder) / "one", settings)
        besides = one.record["wall_seconds"] - one.record["fit_seconds"]
        megabytes = {
            "all": size(one.folder) / 1e6,
            "last.ckpt": (one.folder / "checkpoints" / "last.ckpt").stat().st_size / 1e6,
        }
        many = Path(folder) / "many"
        for number in range(settings["runs"]):
            (many / f"seed={number}").mkdir(parents=True)
            shutil.copy(one.folder / "record.json", many / f"seed={number}")
        started = time.perf_counter()
        found = run_folder.below(many)
        listed = time.perf_counter() - started
        ranking.ranked([run.record for run in found], [run.folder.name for run in found])
        ranked = time.perf_counter() - started
    each = {"composed": median(composed[1:]), "besides_epochs": besides, "listed": listed, "ranked": ranked}
    lines = [
        Line("a run's config is composed", "s", each["composed"]),
        Line(f"{name}: a run besides its epochs", "s", besides),
        Line(f"{settings['runs']:,} runs are listed", "s", listed),
        Line(f"{settings['runs']:,} runs are listed and ranked", "s", ranked),
        Line(f"{name}: a run's folder", "MB", megabytes["all"]),
    ]
    return Measured({"runs": settings["runs"], "model": name, "seconds": each, "megabytes": megabytes}, lines)


def _trained(folder: Path, settings: Settings) -> "RunState":
    from emotion.records import run_folder
    from emotion.train import train

    given = [f"model={settings['name']}", *SHORT, f"trainer.accelerator={settings['trainer']['accelerator']}"]
    for name in ("first", "second"):  # the first is to warm up
        cfg = compose("train", *given, "logger=csv", "~callbacks.tensorboard_pictures")
        train(cfg, folder / name)
    return run_folder.read(folder / "second")


def bench_time_to_accuracy(settings: Settings) -> Measured:
    """Wall seconds and test accuracy of each experiment, whose runs lie below the bench's own.

    Raises:
        UserError: there is no such experiment, before any is begun; or a run failed, and its output says why.
    """
    for experiment in settings["experiments"]:
        archive.experiment(experiment)  # or it is refused
    found, lines = [], []
    for experiment in settings["experiments"]:
        run_dir = Path(settings["run_dir"]) / experiment
        command = [
            *(sys.executable, "-m", "emotion.train", f"experiment={experiment}", f"seed={settings['seed']}"),
            *(f"hydra.run.dir={run_dir}", f"data_dir={settings['data_dir']}", f"cache_dir={settings['cache_dir']}"),
            *settings["given"],
        ]
        started = time.perf_counter()
        done = subprocess.run(command, check=False)
        took = time.perf_counter() - started
        if done.returncode:
            raise UserError(f"{' '.join(command[1:])} ended with status {done.returncode}; its output says why.")
        record = read_record(run_dir) or {}
        scores = {tta: one["all"]["accuracy"][0] for tta, one in record["scores"]["test"].items()}
        lines.append(Line(f"{experiment}, start to scores", "s", took))
        lines += [Line(f"{experiment}, accuracy, tta={tta}", "%", 100 * one) for tta, one in scores.items()]
        found.append({"experiment": experiment, "seed": settings["seed"], "seconds": took, "accuracy": scores})
    return Measured({"runs": found}, lines)
