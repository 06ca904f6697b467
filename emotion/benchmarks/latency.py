"""How long one face takes: python -m emotion.bench measure=latency [model=NAME] [seconds=8].

Raw pixels to probabilities, one face at a time on one thread, in torch, in ONNX Runtime and there in whole numbers of 8
bits, called in turn for `seconds` each. Weights are as they are drawn and ranges those of drawn faces: that changes no
time.
"""

import tempfile
from pathlib import Path
from typing import Any

from emotion.benchmarks.scoreboard import Line, Measured

Settings = dict[str, Any]


def bench_latency(settings: Settings) -> Measured:
    """Median milliseconds of each.

    Raises:
        UserError: the network cannot be had as ONNX.
    """
    import torch

    from emotion import assembly, checkpoints, ensemble
    from emotion.exporting.latency import milliseconds, one_thread
    from emotion.exporting.onnx_export import drawn, export_onnx
    from emotion.exporting.onnx_int8 import quantised
    from emotion.inference.onnx_judge import OnnxJudge

    source = {"_target_": "emotion.data.synthetic.read", "training": 20, "public_test": 2, "private_test": 2}
    data, _ = assembly.make_data(settings | {"data": source})
    classifier = assembly.make_classifier(settings, data)
    alone = ensemble.Ensemble([checkpoints.Loaded(Path(), classifier, {"source": source}, "", 0)])
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
