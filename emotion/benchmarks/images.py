"""Speed and memory by number of images: python -m emotion.bench measure=images [images=[1000,10000]].

For each number, a separate process prepares a path list of synthetic JPEG files of mixed sizes and loads a fixed
number of training batches. Anonymous memory is what the program needs; file-backed memory is the part of the mapped
arrays that the system keeps in RAM and frees when necessary.
"""

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from emotion.benchmarks.config import BenchConfig
from emotion.benchmarks.measurement import STATUS, BenchResult, Measurement, endless, memory
from emotion.errors import UserError
from emotion.reporting.tables import print_table

LISTS = {"train": 0.8, "val": 0.1, "test": 0.1}
CHUNK = 500
"""Images that are rendered together and share a folder."""
POLL_SECONDS = 0.02
COLUMNS = {
    "images": "images", "rendered /s": "rendered_per_second", "prepared /s": "prepared_per_second",
    "loaded /s": "loaded_per_second", "start MB": "start_anonymous_mb", "prepare MB": "preparing_anonymous_mb",
    "load MB": "loading_anonymous_mb", "+ mapped MB": "loading_file_mb", "disk MB": "prepared_mb",
}  # fmt: skip


def run(config: BenchConfig) -> BenchResult:
    """Measure rates and memory for each number of `images`."""
    if not STATUS.is_file():
        raise UserError(f"measure=images needs {STATUS}, which only Linux has.")
    minimum = 2 * config.batch_size
    if min(config.images, default=0) < minimum:
        raise UserError(f"images={config.images}: expected numbers of at least {minimum}, twice the batch size.")
    results = [_measure_in_process(config, count) for count in config.images]
    low, high = config.image_sides
    print_table(
        f"JPEG files with sides of {low} to {high} pixels, prepared to {config.image_size}x{config.image_size}; "
        f"{config.steps} batches of {config.batch_size}",
        [{title: f"{result[key]:,.0f}" for title, key in COLUMNS.items()} for result in results],
        left=0,
    )
    first, *others = results
    measurements = [
        Measurement(f"memory, {r['images']:,} images {name}", "MB", r[key], f"{first['images']:,} images", first[key])
        for r in others
        for name, key in (("prepared", "preparing_anonymous_mb"), ("loaded", "loading_anonymous_mb"))
    ]
    details = {
        "sides": config.image_sides, "size": config.image_size, "steps": config.steps,
        "batch_size": config.batch_size, "augment": list(config.augment), "images": results,
    }  # fmt: skip
    return BenchResult(details, measurements)


def _measure_in_process(config: BenchConfig, count: int) -> dict[str, float]:
    """Render the images here and measure in a new process, whose peak memory is its own."""
    with tempfile.TemporaryDirectory(prefix="emotion-bench-") as folder:
        started = time.perf_counter()
        render_lists(Path(folder), count, config.image_sides, config.seed)
        rate = count / (time.perf_counter() - started)
        print(f"{count:,} images: rendered, {rate:,.0f} per second", flush=True)
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            result = process.submit(measure, config, folder).result()
        values = ", ".join(f"{name} {value:,.0f}" for name, value in result.items())
        print(f"{count:,} images: {values}", flush=True)  # before removing them, which can take minutes
    return {"images": count, "rendered_per_second": rate} | result


def render_lists(folder: Path, count: int, sides: Sequence[int], seed: int) -> None:
    """Write distinct JPEG files with sides in the range `sides`, and list them in train.csv, val.csv and test.csv."""
    import numpy as np
    from PIL import Image

    from emotion.data.faces import EMOTIONS
    from emotion.data.readers.images import THREADS
    from emotion.data.readers.synthetic import render_faces

    low, high = sides

    def render_chunk(start: int) -> list[str]:
        rng = np.random.default_rng([seed, start])
        labels = ((np.arange(start, min(start + CHUNK, count))) % len(EMOTIONS)).astype(np.uint8)
        subfolder = folder / f"{start // CHUNK:05d}"
        subfolder.mkdir()
        for index, face in enumerate(render_faces(labels, rng)):
            width, height = rng.integers(low, high, 2, endpoint=True).tolist()
            image = Image.fromarray(face).resize((width, height), Image.Resampling.BICUBIC).convert("RGB")
            image.save(subfolder / f"{index}.jpg", quality=85)
        return [f"{subfolder.name}/{index}.jpg,{EMOTIONS[label]}" for index, label in enumerate(labels)]

    with ThreadPoolExecutor(THREADS) as pool:
        lines = [line for chunk in pool.map(render_chunk, range(0, count, CHUNK)) for line in chunk]
    order = np.random.default_rng(seed).permutation(count)
    ends = np.cumsum([round(share * count) for share in LISTS.values()])[:-1]
    for name, rows in zip(LISTS, np.split(order, ends), strict=True):
        (folder / f"{name}.csv").write_text("\n".join(["path,label", *(lines[row] for row in rows)]) + "\n")


def measure(config: BenchConfig, folder: str) -> dict[str, float]:
    """Return images per second and peak memory in MB of preparing the lists in `folder` and of loading from them."""
    from emotion.data.cache import prepare
    from emotion.data.datamodule import EmotionDataModule

    lists = {part: f"{folder}/{part}.csv" for part in LISTS}
    reader = {"_target_": "emotion.data.readers.path_list.read", "size": config.image_size, **lists}
    cache = Path(folder) / "prepared"
    start = memory()
    started = time.perf_counter()
    with _peak_memory() as preparing:
        rows = len(prepare(reader, cache))
    prepared = rows / (time.perf_counter() - started)
    with _peak_memory() as loading:
        data = EmotionDataModule(
            source=reader, cache_dir=str(cache), labels=config.labels, split=config.split, input=config.input,
            augment=config.augment, batch_size=config.batch_size, seed=config.seed, sampler=config.sampler,
        )  # fmt: skip
        data.setup()
        batches = endless(data.train_dataloader)
        data.fetch(next(batches))
        started = time.perf_counter()
        for _ in range(config.steps):
            data.fetch(next(batches))
        loaded = config.steps * config.batch_size / (time.perf_counter() - started)
    return {
        "prepared_per_second": prepared,
        "loaded_per_second": loaded,
        "start_anonymous_mb": start["RssAnon"],
        "preparing_anonymous_mb": preparing["RssAnon"],
        "preparing_file_mb": preparing["RssFile"],
        "loading_anonymous_mb": loading["RssAnon"],
        "loading_file_mb": loading["RssFile"],
        "prepared_mb": sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) / 1e6,
    }


@contextmanager
def _peak_memory() -> Iterator[dict[str, float]]:
    """Poll the memory within the block; yield its peaks in MB by kind."""
    peaks, done = memory(), threading.Event()

    def poll() -> None:
        while not done.wait(POLL_SECONDS):
            peaks.update({kind: max(peaks[kind], value) for kind, value in memory().items()})

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()
