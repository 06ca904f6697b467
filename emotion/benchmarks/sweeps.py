"""What a sweep costs besides its epochs: python -m emotion.bench measure=sweeps [runs=1000].

One run of one batch is trained on drawn faces twice; its folder, so many times, is then listed and ranked.
"""

import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from emotion.benchmarks.scoreboard import Line, Measured
from emotion.cli import compose, is_whole
from emotion.errors import UserError

if TYPE_CHECKING:
    from emotion.run_folder import RunState

Settings = dict[str, Any]
SHORT = (
    "data=synthetic", "data.training=20", "trainer.max_epochs=1", "trainer.limit_train_batches=1", "compile.cpu=false",
)  # fmt: skip


def bench_sweeps(settings: Settings) -> Measured:
    """Seconds to compose a run, of a run besides its epochs, to list and to rank `runs` of them, and what one takes.

    Raises:
        UserError: no number of runs.
    """
    from emotion import ranking, run_folder
    from emotion.run_filters import size

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
    from emotion import run_folder
    from emotion.train import train

    given = [f"model={settings['name']}", *SHORT, f"trainer.accelerator={settings['trainer']['accelerator']}"]
    for name in ("first", "second"):  # the first is to warm up
        cfg = compose("train", *given, "logger=csv", "~callbacks.tensorboard_pictures")
        train(cfg, folder / name)
    return run_folder.read(folder / "second")
