"""Runs beside each other on one machine, each on an accelerator of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout


def available(accelerator: str) -> int:
    """Accelerators that runs can be spread over."""
    return torch.accelerator.device_count() if accelerator != "cpu" else 0


@contextmanager
def own_device(folder: Path, count: int) -> Iterator[list[int]]:
    """The number of one of `count` accelerators that no other run of the sweep has, or the last if all are taken.

    A run that ends in any way gives it back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        lock = FileLock(folder / f".device{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield [number]
        finally:
            lock.release()
        return
    yield [count - 1]
