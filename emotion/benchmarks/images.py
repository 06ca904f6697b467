"""How many images of mixed sizes a path list may have: python -m emotion.bench measure=images [images=[1000,10000]].

For each number, in a process of its own: drawn faces as JPEG files of mixed sizes, prepared, then training batches
for a fixed number of steps. Anonymous memory is what a program cannot do without; file-backed memory is the pages of
the prepared arrays that the system has at hand, which it takes back when it needs them.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from emotion.benchmarks.measurement import STATUS, Line, Measured, memory
from emotion.errors import UserError
from emotion.reporting.text import console

Settings = dict[str, Any]
LISTS = {"train": 0.8, "val": 0.1, "test": 0.1}
AT_ONCE = 500  # images drawn together, and in one folder
EVERY = 0.02  # seconds between two looks at the memory


def bench_images(settings: Settings) -> Measured:
    """Rates and memory for each of `settings["images"]`.

    Raises:
        UserError: a number too small for its batches, or a system that does not tell a process its memory.
    """
    if not STATUS.is_file():
        raise UserError(f"measure=images reads {STATUS}, which this system does not have; expected Linux.")
    least = 2 * settings["batch_size"]
    if min(settings["images"], default=0) < least:
        raise UserError(f"images={settings['images']}: expected numbers from {least} on, twice the batch size.")
    measured = [_alone(settings, count) for count in settings["images"]]
    _print(measured, settings)
    first, *others = measured
    lines = [
        Line(f"memory, {one['images']:,} images {does}", "MB", one[key], f"{first['images']:,} images", first[key])
        for one in others
        for does, key in (("prepared", "preparing_anonymous_mb"), ("loaded", "loading_anonymous_mb"))
    ]
    found = {
        "sides": settings["image_sides"], "size": settings["image_size"], "steps": settings["steps"],
        "batch_size": settings["batch_size"], "augment": list(settings["augment"]), "images": measured,
    }  # fmt: skip
    return Measured(found, lines)


def _alone(settings: Settings, count: int) -> Settings:
    """One number of images: drawn here, the rest in a fresh process, so that its peaks are its own."""
    with tempfile.TemporaryDirectory(prefix="emotion-bench-") as folder:
        started = time.perf_counter()
        draw_lists(Path(folder), count, settings["image_sides"], settings["seed"])
        drawing = count / (time.perf_counter() - started)
        print(f"{count:,} images drawn, {drawing:,.0f} a second", flush=True)
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            found = process.submit(measure, settings, folder).result()
        said = ", ".join(f"{name} {value:,.0f}" for name, value in found.items())
        print(f"{count:,} images: {said}", flush=True)  # before they are removed, which takes long of a million
    return {"images": count, "drawn_per_second": drawing} | found


def draw_lists(folder: Path, count: int, sides: tuple[int, int], seed: int) -> None:
    """`count` distinct JPEG files whose sides are in `sides`; train.csv, val.csv and test.csv list them by emotion."""
    import numpy as np
    from PIL import Image

    from emotion.data.faces import EMOTIONS
    from emotion.data.readers.images import THREADS
    from emotion.data.readers.synthetic import draw

    def some(start: int) -> list[str]:
        rng = np.random.default_rng([seed, start])
        labels = ((np.arange(start, min(start + AT_ONCE, count))) % len(EMOTIONS)).astype(np.uint8)
        place = folder / f"{start // AT_ONCE:05d}"
        place.mkdir()
        for index, face in enumerate(draw(labels, rng)):
            width, height = rng.integers(*sides, 2, endpoint=True).tolist()
            image = Image.fromarray(face).resize((width, height), Image.Resampling.BICUBIC).convert("RGB")
            image.save(place / f"{index}.jpg", quality=85)
        return [f"{place.name}/{index}.jpg,{EMOTIONS[label]}" for index, label in enumerate(labels)]

    with ThreadPoolExecutor(THREADS) as pool:
        lines = [line for part in pool.map(some, range(0, count, AT_ONCE)) for line in part]
    order = np.random.default_rng(seed).permutation(count)
    ends = np.cumsum([round(share * count) for share in LISTS.values()])[:-1]
    for name, rows in zip(LISTS, np.split(order, ends), strict=True):
        (folder / f"{name}.csv").write_text("\n".join(["path,label", *(lines[row] for row in rows)]) + "\n")


def measure(settings: Settings, folder: str) -> dict[str, float]:
    """Images per second and peaks of memory in MB of preparing the lists in `folder` and of loading from them."""
    from emotion.data.cache import prepare
    from emotion.data.datamodule import EmotionDataModule

    lists = {part: f"{folder}/{part}.csv" for part in LISTS}
    reader = {"_target_": "emotion.data.readers.path_list.read", "size": settings["image_size"], **lists}
    cache = Path(folder) / "prepared"
    start = memory()
    started = time.perf_counter()
    with _peaks() as preparing:
        rows = len(prepare(reader, cache))
    prepared = rows / (time.perf_counter() - started)
    described = ("labels", "split", "input", "augment", "batch_size", "seed", "sampler")
    with _peaks() as loading:
        data = EmotionDataModule(source=reader, cache_dir=str(cache), **{name: settings[name] for name in described})
        data.setup()
        batches = _endless(data.train_dataloader)
        data.fetch(next(batches))
        started = time.perf_counter()
        for _ in range(settings["steps"]):
            data.fetch(next(batches))
        loaded = settings["steps"] * settings["batch_size"] / (time.perf_counter() - started)
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


def _endless(batches: Callable[[], Any]) -> Iterator[Any]:
    epoch = 0
    loader = batches()
    while True:
        loader.set_epoch(epoch)
        yield from loader
        epoch += 1


@contextmanager
def _peaks() -> Iterator[dict[str, float]]:
    """The most memory of each kind while inside, in MB, looked at every few milliseconds."""
    peaks, done = memory(), threading.Event()

    def look() -> None:
        while not done.wait(EVERY):
            peaks.update({kind: max(peaks[kind], value) for kind, value in memory().items()})

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


def _print(measured: list[Settings], settings: Settings) -> None:
    from rich.table import Table

    size, steps, batch = (settings[name] for name in ("image_size", "steps", "batch_size"))
    least, most = settings["image_sides"]
    title = f"JPEG files of {least} to {most} pixels made {size}x{size}; {steps} batches of {batch}"
    table = Table(title=title, title_justify="left")
    columns = {
        "images": "images", "drawn /s": "drawn_per_second", "prepared /s": "prepared_per_second",
        "loaded /s": "loaded_per_second", "at start MB": "start_anonymous_mb",
        "preparing MB": "preparing_anonymous_mb", "loading MB": "loading_anonymous_mb",
        "+ mapped MB": "loading_file_mb", "on disk MB": "prepared_mb",
    }  # fmt: skip
    for column in columns:
        table.add_column(column, justify="right")
    for one in measured:
        table.add_row(*(f"{one[key]:,.0f}" for key in columns.values()))
    console().print(table)
