"""Which face of a frame is which of the frames before, and what it shows without the flicker."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion.inference.detectors import Box
from emotion.inference.predictor import Face

LEAST_OVERLAP = 0.3  # intersection over union
GAP_SECONDS, GAP_FRAMES = 1.0, 3  # a face that has been away for longer than both is another one when it is back


@dataclass(slots=True, eq=False)
class Track:
    """A face over time: its number from 1 on, where and when it was last seen, and its probabilities (K,)."""

    number: int
    box: Box
    shares: NDArray[np.float32]
    time: float
    missed: int = 0


class Tracker:
    """Gives each face the number of the one that it overlaps most in the frame before, the closest pairs first.

    Args:
        smoothing: time constant in seconds of the exponential mean of a face's probabilities: a change is 63 % through
            after so long; 0 leaves each frame its own.
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing = smoothing
        self.tracks: list[Track] = []
        self.found = 0

    def update(self, time: float, faces: Sequence[Face]) -> list[Track]:
        """The tracks of a frame's faces, in their order."""
        self.tracks = [t for t in self.tracks if t.missed < GAP_FRAMES or time - t.time <= GAP_SECONDS]
        pairs = [(overlap(t.box, f.box), i, j) for i, t in enumerate(self.tracks) for j, f in enumerate(faces)]
        of_face: dict[int, Track] = {}
        for share, i, j in sorted(pairs, key=lambda pair: -pair[0]):
            track = self.tracks[i]
            if share >= LEAST_OVERLAP and j not in of_face and track not in of_face.values():
                of_face[j] = track
        for track in self.tracks:
            track.missed += 1
        found = []
        for j, face in enumerate(faces):
            if j in of_face:
                track = of_face[j]
                track.shares = track.shares + self._weight(time - track.time) * (face.shares - track.shares)
                track.box, track.time, track.missed = face.box, time, 0
            else:
                self.found += 1
                track = Track(self.found, face.box, face.shares, time)
                self.tracks.append(track)
            found.append(track)
        return found

    def _weight(self, seconds: float) -> np.float32:
        """Of a frame that comes so long after the one before."""
        return np.float32(1 - math.exp(-seconds / self.smoothing) if self.smoothing else 1)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union, 0 to 1."""
    across = min(one.left + one.side, other.left + other.side) - max(one.left, other.left)
    down = min(one.top + one.side, other.top + other.side) - max(one.top, other.top)
    both = max(0.0, across) * max(0.0, down)
    return both / (one.side**2 + other.side**2 - both)
