"""How long an answer takes."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median

import torch

WARM_UP, LEAST = 5, 20


def milliseconds(asked: Mapping[str, Callable[[], object]], seconds: float = 1.0) -> dict[str, float]:
    """The median time of each call, for about so many seconds each.

    They are called in turn, so that a machine whose speed drifts drifts for all of them.
    """
    for ask in asked.values():
        for _ in range(WARM_UP):
            ask()
    times: dict[str, list[float]] = {name: [] for name in asked}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds * len(asked) or len(next(iter(times.values()))) < LEAST:
        for name, ask in asked.items():
            started = time.perf_counter()
            ask()
            times[name].append(time.perf_counter() - started)
    return {name: 1000 * median(taken) for name, taken in times.items()}


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
