"""Latency of one face: python -m emotion.bench measure=latency [model=NAME] [seconds=8].

Raw pixels to probabilities, one face at a time on one thread, in PyTorch, ONNX Runtime and ONNX Runtime with int8. The
weights are random and the calibration faces synthetic, which does not change the latency.
"""

import tempfile
from pathlib import Path

from emotion.benchmarks.config import BenchConfig
from emotion.benchmarks.measurement import BenchResult, Measurement, synthetic_classifier


def run(config: BenchConfig) -> BenchResult:
    """Measure the median milliseconds of each."""
    import torch

    from emotion.checkpoints.ensemble import Ensemble
    from emotion.checkpoints.load import LoadedCheckpoint
    from emotion.exporting.int8 import median_milliseconds, quantize
    from emotion.exporting.onnx import export_onnx, synthetic_faces
    from emotion.inference.onnx_backend import OnnxBackend
    from emotion.runtime.hardware import single_thread

    classifier, _, source = synthetic_classifier(config)
    ensemble = Ensemble([LoadedCheckpoint(Path(), classifier, {"source": source}, {}, 0)])
    faces = synthetic_faces(*ensemble.source_shape)
    with tempfile.TemporaryDirectory() as folder, single_thread():
        fp32 = Path(folder) / "fp32.onnx"
        export_onnx(ensemble, fp32)
        files = {"onnx": fp32, "onnx int8": quantize(fp32, Path(folder), faces, ("MinMax",))["MinMax"]}
        backends = {name: OnnxBackend(file, threads=1) for name, file in files.items()}
        pixels = torch.from_numpy(faces[:1])
        milliseconds = median_milliseconds(
            {"torch": lambda: ensemble.probabilities(pixels)}
            | {name: lambda b=backend: b.probabilities(faces[:1]) for name, backend in backends.items()},  # type: ignore[misc]
            config.seconds,
        )
        sizes = {name: file.stat().st_size for name, file in files.items()}
    details = {"model": config.model["_target_"], "milliseconds": milliseconds, "bytes": sizes}
    title = f"{ensemble.name}: one face, one thread"
    return BenchResult(
        details,
        [Measurement(f"{title}, {name}", "ms", milliseconds[name], "torch", milliseconds["torch"]) for name in sizes],
    )
