"""Layers in bfloat16 compared with float32: python -m emotion.bench measure=bf16 [model=NAME]."""

import tempfile
from dataclasses import replace

from emotion.benchmarks.config import BenchConfig
from emotion.benchmarks.measurement import BenchResult, Measurement, synthetic_classifier


def run(config: BenchConfig) -> BenchResult:
    """Measure the time of all layers, and the largest relative error of one; see `emotion.runtime.precision`."""
    from emotion.runtime.precision import MAX_ERROR
    from emotion.training.setup import precision_report

    classifier, *_ = synthetic_classifier(config)
    with tempfile.TemporaryDirectory() as folder:
        report = precision_report(replace(config, cache_dir=folder), classifier)
    name = config.network
    times = Measurement(f"{name}, layers in bfloat16", "ms", 1e3 * report.bfloat16, "float32", 1e3 * report.float32)
    error = Measurement(f"{name}, largest error of a layer", "%", 100 * report.error, "allowed", 100 * MAX_ERROR)
    return BenchResult({"model": config.model["_target_"]} | report._asdict(), [times, error])
