"""What became of a source since it was prepared last, in a few words."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from emotion.data.faces import Faces

CHUNK = 4096  # rows at once
SHOWN = 3  # rows of which it is said what differs


def difference(before: Faces, now: Faces) -> str:
    """How the faces of a source differ from those that it had before; empty where they do not."""
    said = []
    for name, old, new in (
        ("classes", ", ".join(before.classes), ", ".join(now.classes)),
        ("faces", f"{len(before):,}", f"{len(now):,}"),
        ("pixels a side", str(before.images.shape[1:]), str(now.images.shape[1:])),
    ):
        if old != new:
            said.append(f"{new} {name}, formerly {old}")
    found: dict[int, list[str]] = {}
    for name, olds, news in _columns(before, now):
        for row in _differing(olds, news):
            found.setdefault(row, []).append(name)
    if found:
        first = ", ".join(f"row {row} ({', '.join(found[row])})" for row in sorted(found)[:SHOWN])
        more = ", ..." if len(found) > SHOWN else ""
        said.append(f"{len(found):,} of {min(len(before), len(now)):,} rows differ: {first}{more}")
    return "; ".join(said)


def _columns(before: Faces, now: Faces) -> Iterator[tuple[str, NDArray[np.generic], NDArray[np.generic]]]:
    if before.images.shape[1:] == now.images.shape[1:]:
        yield "pixels", before.images, now.images
    yield "label", before.labels, now.labels
    yield "usage", before.usage, now.usage
    yield "origin", before.origin, now.origin
    if before.votes is not None and now.votes is not None:
        yield "votes", before.votes, now.votes


def _differing(before: NDArray[np.generic], now: NDArray[np.generic]) -> Iterator[int]:
    """The rows that both have, and not alike."""
    for start in range(0, min(len(before), len(now)), CHUNK):
        olds, news = before[start : start + CHUNK], now[start : start + CHUNK]
        shared = min(len(olds), len(news))
        unlike = olds[:shared] != news[:shared]
        yield from (start + np.flatnonzero(unlike.reshape(shared, -1).any(1))).tolist()
