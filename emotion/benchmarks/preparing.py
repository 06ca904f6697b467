"""From fer2013.csv to faces at hand, against torchvision.datasets.FER2013, and once more from what was prepared.

The file has `rows` rows, as many as FER2013, of a few thousand drawn faces over and over; each reading is a process of
its own, so that its memory is too.
"""

import csv
import hashlib
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from emotion.benchmarks.measurement import Line, Measured, peak
from emotion.config.compose import VERBS

Settings = dict[str, Any]
DISTINCT = 2000  # faces drawn for the file


def bench_preparing(settings: Settings) -> Measured:
    """Seconds and peak memory of this package's first and second reading and of torchvision's."""
    readings = {"first": _prepare, "again": _prepare, "torchvision": _torchvision}
    seconds: dict[str, list[float]] = {name: [] for name in readings}
    peaks: dict[str, list[float]] = {name: [] for name in readings}
    for _ in range(settings["rounds"]):
        with tempfile.TemporaryDirectory() as folder:
            write_csv(Path(folder) / "fer2013" / "fer2013.csv", settings["rows"], settings["seed"])
            for name, reading in readings.items():
                with ProcessPoolExecutor(1, get_context("spawn")) as process:
                    took, most = process.submit(reading, folder).result()
                seconds[name].append(took)
                peaks[name] += [] if most is None else [most]
    rate = {name: median(taken) for name, taken in seconds.items()}
    lines = [
        Line("fer2013.csv is read, first time", "s", rate["first"], "torchvision", rate["torchvision"]),
        Line("fer2013.csv is read, again", "s", rate["again"], "torchvision", rate["torchvision"]),
    ]
    if all(peaks.values()):
        first, other = median(peaks["first"]), median(peaks["torchvision"])
        lines.append(Line("memory to read it", "MB", first, "torchvision", other))
    return Measured({"rows": settings["rows"], "seconds": seconds, "memory_mb": peaks}, lines)


def write_csv(path: Path, rows: int, seed: int) -> None:
    """`rows` drawn faces in the form of fer2013.csv: eight in ten Training, the rest of both test sets."""
    import numpy as np

    from emotion.data.readers.synthetic import draw

    labels = (np.arange(min(rows, DISTINCT)) % 7).astype(np.uint8)
    drawn = draw(labels, np.random.default_rng(seed))
    texts = [" ".join(map(str, face.ravel())) for face in drawn]
    usages = ["Training"] * 8 + ["PublicTest", "PrivateTest"]
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        for row in range(rows):
            which = row % len(texts)
            writer.writerow([labels[which], texts[which], usages[row % len(usages)]])


def _prepare(folder: str) -> tuple[float, float | None]:
    from emotion.data.cache import prepare

    reader = {"_target_": "emotion.data.readers.fer2013.read_csv", "path": f"{folder}/fer2013/fer2013.csv"}
    started = time.perf_counter()
    prepare(reader, Path(folder) / "prepared").images[-1].sum()
    return time.perf_counter() - started, peak()


def _torchvision(folder: str) -> tuple[float, float | None]:
    from torchvision.datasets import FER2013

    digest = hashlib.md5((Path(folder) / "fer2013" / "fer2013.csv").read_bytes()).hexdigest()

    class Drawn(FER2013):  # type: ignore[misc]  # torchvision has no types
        _RESOURCES = FER2013._RESOURCES | {"fer": ("fer2013.csv", digest)}

    started = time.perf_counter()
    for split in ("train", "test"):
        len(Drawn(folder, split))
    return time.perf_counter() - started, peak()


TORCH = "import torch"


def bench_start_up(settings: Settings) -> Measured:
    """The median seconds of `rounds` processes each, in turn."""
    asked = {TORCH: ["-c", TORCH]} | {verb: ["-m", f"emotion.{verb}", "--help"] for verb in VERBS}
    rounds: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(settings["rounds"]):
        for name, arguments in asked.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            rounds[name].append(time.perf_counter() - started)
    seconds = {name: median(times) for name, times in rounds.items()}
    lines = [Line(f"emotion.{verb} --help", "s", seconds[verb], TORCH, seconds[TORCH]) for verb in VERBS]
    return Measured({"seconds": rounds}, lines)
