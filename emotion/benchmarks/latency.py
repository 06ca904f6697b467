"""How long one face takes: python -m emotion.bench measure=latency [model=NAME] [seconds=8].

Raw pixels to probabilities, one face at a time on one thread, in torch, in ONNX Runtime and there in whole numbers of 8
bits, called in turn for `seconds` each. Weights are as they are drawn and ranges those of drawn faces: that changes no
time.
"""

import tempfile
from pathlib import Path
from typing import Any

from emotion.benchmarks.measurement import Line, Measured

Settings = dict[str, Any]


def bench_latency(settings: Settings) -> Measured:
    """Median milliseconds of each.

    Raises:
        UserError: the network cannot be had as ONNX.
    """
    import torch

    from emotion.checkpoints import ensemble
    from emotion.checkpoints.load import Loaded
    from emotion.exporting.int8 import milliseconds, quantised
    from emotion.exporting.onnx import drawn, export_onnx
    from emotion.inference.onnx_backend import OnnxJudge
    from emotion.runtime.hardware import one_thread
    from emotion.training import setup

    source = {"_target_": "emotion.data.readers.synthetic.read", "training": 20, "public_test": 2, "private_test": 2}
    data, _ = setup.make_data(settings | {"data": source})
    classifier = setup.make_classifier(settings, data)
    alone = ensemble.Ensemble([Loaded(Path(), classifier, {"source": source}, "", 0)])
    faces = drawn(*alone.stored)
    with tempfile.TemporaryDirectory() as folder, one_thread():
        fp32 = Path(folder) / "fp32.onnx"
        export_onnx(alone, fp32)
        int8 = quantised(fp32, Path(folder), faces, ("MinMax",))["MinMax"]
        judges = {name: OnnxJudge(file, threads=1) for name, file in {"onnx": fp32, "onnx int8": int8}.items()}
        pixels = torch.from_numpy(faces[:1])
        found = milliseconds(
            {"torch": lambda: alone.probabilities(pixels)}
            | {name: lambda judge=judge: judge.probabilities(faces[:1]) for name, judge in judges.items()},  # type: ignore[misc]
            settings["seconds"],
        )
        sizes = {name: file.stat().st_size for name, file in {"onnx": fp32, "onnx int8": int8}.items()}
    lines = [
        Line(f"{alone.name}: one face, one thread, {name}", "ms", found[name], "torch", found["torch"])
        for name in sizes
    ]
    return Measured({"model": settings["model"]["_target_"], "milliseconds": found, "bytes": sizes}, lines)


def bench_kernels(settings: Settings) -> Measured:
    """Milliseconds of all layers, and the largest error of one."""
    from emotion.runtime.precision import MOST_ERROR
    from emotion.training import setup

    source = {"_target_": "emotion.data.readers.synthetic.read", "training": 20, "public_test": 2, "private_test": 2}
    data, _ = setup.make_data(settings | {"data": source})
    classifier = setup.make_classifier(settings, data)
    with tempfile.TemporaryDirectory() as folder:
        found = setup.verdict_on_bf16(classifier, settings | {"cache_dir": folder})
    name = settings["model"].get("backbone") or settings["model"]["_target_"].rsplit(".", 1)[-1]
    times = Line(f"{name}'s layers in bfloat16", "ms", 1e3 * found.bfloat16, "float32", 1e3 * found.float32)
    error = Line(f"{name}'s layer that is the most off", "%", 100 * found.error, "allowed", 100 * MOST_ERROR)
    return Measured({"model": settings["model"]["_target_"]} | found._asdict(), [times, error])
