"""What bfloat16 gains and loses, layer by layer: python -m emotion.bench measure=kernels [model=NAME].

The layers of a training step, there and back, as `trainer.precision=auto` looks at them; nothing kept is asked.
"""

import tempfile
from typing import Any

from emotion.benchmarks.scoreboard import Line, Measured

Settings = dict[str, Any]


def bench_kernels(settings: Settings) -> Measured:
    """Milliseconds of all layers, and the largest error of one."""
    from emotion import assembly, kernels

    source = {"_target_": "emotion.data.synthetic.read", "training": 20, "public_test": 2, "private_test": 2}
    data, _ = assembly.make_data(settings | {"data": source})
    classifier = assembly.make_classifier(settings, data)
    with tempfile.TemporaryDirectory() as folder:
        found = assembly.verdict_on_bf16(classifier, settings | {"cache_dir": folder})
    name = settings["model"].get("backbone") or settings["model"]["_target_"].rsplit(".", 1)[-1]
    times = Line(f"{name}'s layers in bfloat16", "ms", 1e3 * found.bfloat16, "float32", 1e3 * found.float32)
    error = Line(f"{name}'s layer that is the most off", "%", 100 * found.error, "allowed", 100 * kernels.MOST_ERROR)
    return Measured({"model": settings["model"]["_target_"]} | found._asdict(), [times, error])
