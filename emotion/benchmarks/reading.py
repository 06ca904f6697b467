"""Reading fer2013.csv, first and from the cache, compared with torchvision: python -m emotion.bench measure=reading.

The file has `rows` rows of synthetic faces, which repeat after 2,000. Each reading runs in its own process, so that its
peak memory is its own.
"""

import csv
import hashlib
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from emotion.benchmarks.config import BenchConfig
from emotion.benchmarks.measurement import BenchResult, Measurement, peak_memory

DISTINCT_FACES = 2000


def run(config: BenchConfig) -> BenchResult:
    """Measure seconds and peak memory of the first and second reading by this package, and of torchvision's."""
    readers = {"first": _prepare, "again": _prepare, "torchvision": _torchvision}
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    peaks: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(config.rounds):
        with tempfile.TemporaryDirectory() as folder:
            write_csv(Path(folder) / "fer2013" / "fer2013.csv", config.rows, config.seed)
            for name, reader in readers.items():
                with ProcessPoolExecutor(1, get_context("spawn")) as process:
                    duration, peak = process.submit(reader, folder).result()
                seconds[name].append(duration)
                peaks[name] += [] if peak is None else [peak]
    medians = {name: median(durations) for name, durations in seconds.items()}
    measurements = [
        Measurement(f"read fer2013.csv, {name}", "s", medians[key], "torchvision", medians["torchvision"])
        for key, name in (("first", "first time"), ("again", "from the cache"))
    ]
    if all(peaks.values()):
        first, baseline = median(peaks["first"]), median(peaks["torchvision"])
        measurements.append(Measurement("memory to read it", "MB", first, "torchvision", baseline))
    return BenchResult({"rows": config.rows, "seconds": seconds, "memory_mb": peaks}, measurements)


def write_csv(path: Path, rows: int, seed: int) -> None:
    """Write synthetic faces in the format of fer2013.csv: 80 % Training, the rest in both test sets."""
    import numpy as np

    from emotion.data.readers.synthetic import render_faces

    labels = (np.arange(min(rows, DISTINCT_FACES)) % 7).astype(np.uint8)
    faces = render_faces(labels, np.random.default_rng(seed))
    pixels = [" ".join(map(str, face.ravel())) for face in faces]
    usages = ["Training"] * 8 + ["PublicTest", "PrivateTest"]
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        for row in range(rows):
            face = row % len(pixels)
            writer.writerow([labels[face], pixels[face], usages[row % len(usages)]])


def _prepare(folder: str) -> tuple[float, float | None]:
    from emotion.data.cache import prepare

    reader = {"_target_": "emotion.data.readers.fer2013.read_csv", "path": f"{folder}/fer2013/fer2013.csv"}
    started = time.perf_counter()
    prepare(reader, Path(folder) / "prepared").images[-1].sum()
    return time.perf_counter() - started, peak_memory()


def _torchvision(folder: str) -> tuple[float, float | None]:
    from torchvision.datasets import FER2013

    digest = hashlib.md5((Path(folder) / "fer2013" / "fer2013.csv").read_bytes()).hexdigest()

    class SyntheticFER2013(FER2013):  # type: ignore[misc]  # torchvision has no types
        _RESOURCES = FER2013._RESOURCES | {"fer": ("fer2013.csv", digest)}

    started = time.perf_counter()
    for split in ("train", "test"):
        len(SyntheticFER2013(folder, split))
    return time.perf_counter() - started, peak_memory()
