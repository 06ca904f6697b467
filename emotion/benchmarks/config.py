"""The config of the benchmarks, typed."""

from dataclasses import dataclass
from typing import Any

from emotion.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class BenchConfig(TrainConfig):
    """The settings of conf/bench.yaml: those of training and of the measurements."""

    measure: Any
    models: Any
    seconds: float
    rounds: int
    images: list[int]
    image_sides: list[int]
    image_size: int
    steps: int
    faces: int
    clients: int
    rows: int
    runs: int
    experiments: list[str]
    overrides: list[str]
