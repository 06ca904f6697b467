"""From a photograph to an answer: python -m emotion.bench measure=inference.

Detectors run on one thread, on synthetic faces on a wall; loading and predict run in separate processes.
"""

import json
import subprocess
import sys
import tempfile
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

from emotion.benchmarks.config import BenchConfig
from emotion.benchmarks.demo import render_image
from emotion.benchmarks.measurement import BenchResult, Measurement, alternate, timed

SIZES = {"camera image of 640x480": (640, 480), "photograph of 1152x864": (1152, 864)}
NUM_CROPS = 1000
LOAD = """
import json, time
start = time.perf_counter()
import emotion
emotion.load({arguments})
seconds = time.perf_counter() - start
from emotion.benchmarks.measurement import peak_memory
print(json.dumps([seconds, peak_memory()]))
"""
LIGHT, HEAVY = "", "tta='ten_crop'"  # only PyTorch can do ten_crop


def run(config: BenchConfig) -> BenchResult:
    """Measure detectors, loading, the rate of cropped faces, and the verb predict; medians of `rounds`."""
    details: dict[str, Any] = {"detectors": _detector_milliseconds(config.rounds)}
    loading = alternate({"light": lambda: _load(LIGHT), "heavy": lambda: _load(HEAVY)}, config.rounds)
    details |= {
        "loading": loading,
        "predict": _predict_seconds(config.rounds),
        "crops": _crops_per_second(config.rounds),
    }
    measurements = [
        Measurement(f"BlazeFace, {size}", "ms", times["BlazeFace"], "Haar", times["Haar"])
        for size, times in details["detectors"].items()
    ]
    for i, (name, unit) in enumerate((("emotion.load()", "s"), ("memory of emotion.load()", "MB"))):
        light, heavy = (median(values[i] for values in loading[kind]) for kind in ("light", "heavy"))
        measurements.append(Measurement(name, unit, light, "with PyTorch", heavy))
    measurements += [
        Measurement("emotion.predict of a photograph, from start to exit", "s", median(details["predict"])),
        Measurement("cropped faces, all threads", "faces/s", median(details["crops"])),
    ]
    return BenchResult(details, measurements)


def _detector_milliseconds(rounds: int) -> dict[str, dict[str, float]]:
    import cv2
    import numpy as np
    from PIL import Image

    from emotion.data.crop import Detector
    from emotion.inference.blazeface import BlazeFace
    from emotion.inference.detectors import Haar

    detectors: dict[str, Detector] = {"BlazeFace": BlazeFace(), "Haar": Haar()}
    photograph = Image.open(BytesIO(render_image())).convert("RGB")
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    results = {}
    for name, size in SIZES.items():
        pixels = np.asarray(photograph.resize(size))
        calls = {kind: timed(partial(detector, pixels)) for kind, detector in detectors.items()}
        alternate(calls, 1)  # warm-up
        results[name] = {kind: 1000 * median(times) for kind, times in alternate(calls, 10 * rounds).items()}
    cv2.setNumThreads(threads)
    return results


def _crops_per_second(rounds: int) -> list[float]:
    import numpy as np

    import emotion
    from emotion.data.readers.synthetic import render_faces

    faces = list(render_faces((np.arange(NUM_CROPS) % 7).astype(np.uint8), np.random.default_rng(0)))
    predictor = emotion.load(detector="none")
    predictor.predict(faces[:100])
    call = timed(lambda: predictor.predict(faces))
    return [NUM_CROPS / call() for _ in range(rounds)]


def _predict_seconds(rounds: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "photo.jpg").write_bytes(render_image())
        command = [sys.executable, "-m", "emotion.predict", "source=photo.jpg"]
        call = timed(lambda: subprocess.run(command, cwd=folder, check=True, capture_output=True))
        return [call() for _ in range(rounds)]


def _load(arguments: str) -> tuple[float, float]:
    """Return the seconds and the MB of loading in a new process."""
    code = LOAD.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, megabytes = json.loads(done.stdout)
    return seconds, megabytes
