"""Track faces through a video and smooth their probabilities."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion.data.crop import Box
from emotion.inference.predictor import Face

MIN_IOU = 0.3
GAP_SECONDS, GAP_FRAMES = 1.0, 3  # a face absent for longer than both gets a new track when it returns


@dataclass(slots=True, eq=False)
class Track:
    """A face over time."""

    number: int  # from 1
    box: Box  # the latest
    probs: NDArray[np.float32]  # smoothed, (K,)
    time: float  # seconds at which it was last seen
    missed: int = 0  # frames since then


class Tracker:
    """Match the faces of successive frames by overlap, the best pairs first.

    Args:
        smoothing: Time constant in seconds of the exponential average of a face's probabilities; 0 turns it off.
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing = smoothing
        self.tracks: list[Track] = []
        self.num_tracks = 0

    def update(self, time: float, faces: Sequence[Face]) -> list[Track]:
        """Return the track of each face of the next frame, in the order of `faces`."""
        self.tracks = [t for t in self.tracks if t.missed < GAP_FRAMES or time - t.time <= GAP_SECONDS]
        pairs = [(iou(t.box, f.box), i, j) for i, t in enumerate(self.tracks) for j, f in enumerate(faces)]
        matches: dict[int, Track] = {}
        for overlap, i, j in sorted(pairs, key=lambda pair: -pair[0]):
            if overlap >= MIN_IOU and j not in matches and self.tracks[i] not in matches.values():
                matches[j] = self.tracks[i]
        for known in self.tracks:
            known.missed += 1
        for j, face in enumerate(faces):
            if track := matches.get(j):
                seconds = time - track.time
                weight = np.float32(1 - math.exp(-seconds / self.smoothing) if self.smoothing else 1)
                track.probs = track.probs + weight * (face.probs - track.probs)
                track.box, track.time, track.missed = face.box, time, 0
            else:
                self.num_tracks += 1
                matches[j] = Track(self.num_tracks, face.box, face.probs, time)
                self.tracks.append(matches[j])
        return [matches[j] for j in range(len(faces))]


def iou(box: Box, other: Box) -> float:
    """Return the intersection over union, 0 to 1."""
    width = min(box.left + box.side, other.left + other.side) - max(box.left, other.left)
    height = min(box.top + box.side, other.top + other.side) - max(box.top, other.top)
    intersection = max(0.0, width) * max(0.0, height)
    return intersection / (box.side**2 + other.side**2 - intersection)
