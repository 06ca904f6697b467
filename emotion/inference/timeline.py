"""Summarise the expressions of a video's faces over time, in constant memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emotion.inference.annotate import css_colors
from emotion.inference.frames import FrameResult
from emotion.inference.tracking import GAP_SECONDS

if TYPE_CHECKING:
    from emotion.io.figure import Figure

NUM_BINS = 600  # of equal width, which doubles when the video outgrows them
MIN_WIDTH = 0.02  # seconds of a bin at first
MAX_FACES, MAX_LONGEST = 32, 8  # beyond that, the face seen least recently is dropped, but none of the longest
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200)  # seconds


class FaceHistory:
    """One face's number of frames, and the sums of their times and probabilities, by time bin."""

    def __init__(self, number: int, num_classes: int, start: float) -> None:
        self.number, self.start, self.end = number, start, start  # seconds when first and last seen
        self.frames = np.zeros(NUM_BINS, np.int64)
        self.times = np.zeros(NUM_BINS)
        self.probs = np.zeros((NUM_BINS, num_classes))

    @property
    def num_frames(self) -> int:
        """Number of frames that show the face."""
        return int(self.frames.sum())

    @property
    def mean_probs(self) -> NDArray[np.float64]:
        """Mean probabilities (K,)."""
        mean: NDArray[np.float64] = self.probs.sum(0) / max(1, self.num_frames)
        return mean

    def merge_bins(self) -> None:
        """Merge pairs of bins, which frees the second half."""
        for name in ("frames", "times", "probs"):
            bins = getattr(self, name)
            merged = bins.reshape(NUM_BINS // 2, 2, *bins.shape[1:]).sum(1)
            setattr(self, name, np.concatenate([merged, np.zeros_like(merged)]))

    def segments(self, gap: float) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Return mean times (n,) and probabilities (n, K) of bins, split where the face is absent for `gap` seconds."""
        used = np.flatnonzero(self.frames)
        times = self.times[used] / self.frames[used]
        probs = self.probs[used] / self.frames[used, None]
        splits = np.flatnonzero(np.diff(times) > gap) + 1
        return list(zip(np.split(times, splits), np.split(probs, splits), strict=True))


class Timeline:
    """The faces of a video over time; of many faces only the longest and latest are kept."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.bin_width = MIN_WIDTH
        self.histories: dict[int, FaceHistory] = {}
        self.num_faces = self.num_frames = 0  # so far
        self.end = 0.0  # seconds of the latest frame

    def add(self, result: FrameResult) -> None:
        """Add the faces of the next frame."""
        time = result.frame.time or 0.0
        self.num_frames += 1
        self.end = max(self.end, time)
        while time >= NUM_BINS * self.bin_width:
            self.bin_width *= 2
            for history in self.histories.values():
                history.merge_bins()
        for number, face in zip(result.face_ids, result.faces, strict=True):
            if number not in self.histories:
                self._drop_face()
                self.num_faces += 1
                self.histories[number] = FaceHistory(number, len(self.classes), time)
            history = self.histories[number]
            index = int(time / self.bin_width)
            history.frames[index] += 1
            history.times[index] += time
            history.probs[index] += face.probs
            history.end = time

    def longest(self, count: int) -> list[FaceHistory]:
        """Return the `count` faces with the most frames, in the order of their appearance."""
        longest = sorted(self.histories.values(), key=lambda history: -history.num_frames)[:count]
        return sorted(longest, key=lambda history: history.number)

    def _drop_face(self) -> None:
        if len(self.histories) >= MAX_FACES:
            longest = self.longest(MAX_LONGEST)
            others = [history for history in self.histories.values() if history not in longest]
            del self.histories[min(others, key=lambda history: history.end).number]

    def plot(self, title: str, max_faces: int = 4) -> "Figure":
        """Plot the stacked probabilities of the longest faces over time, one axes each."""
        from matplotlib.patches import Patch
        from matplotlib.ticker import FuncFormatter, MultipleLocator

        from emotion.io.figure import Figure

        longest = self.longest(max_faces)
        min_frames = 0.01 * max(history.num_frames for history in longest)  # less would hardly be visible
        shown = [history for history in longest if history.num_frames >= min_frames]
        figure = Figure(figsize=(11, 1.4 + 1.75 * len(shown)), layout="constrained")
        grid = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        colors = css_colors(self.classes)
        end = max(self.end, MIN_WIDTH)
        for axes, history in zip(grid, shown, strict=True):
            for times, probs in history.segments(max(GAP_SECONDS, 3 * self.bin_width)):
                narrow = times[-1] - times[0] < end / 300
                if narrow:  # widened to be visible
                    times, probs = times[:1] + np.array([0, end / 300]), np.repeat(probs.mean(0)[None], 2, 0)
                edge = 0 if narrow else 0.4
                axes.stackplot(times, 100 * probs.T, colors=colors, linewidth=edge, edgecolor="white")
            best = int(history.mean_probs.argmax())
            mean = 100 * history.mean_probs[best]
            axes.set_title(
                f"face {history.number}: {self.classes[best]} {mean:.0f} % on average", fontsize=10, loc="left"
            )
            axes.set(xlim=(0, end), ylim=(0, 100), ylabel="%")
            axes.set_yticks([0, 50, 100])
            axes.spines[["top", "right"]].set_visible(False)
        grid[-1].set_xlabel("time")
        step = next((step for step in TICKS if end <= 10 * step), 86400 * -(-end // 864000))
        grid[-1].xaxis.set_major_locator(MultipleLocator(step))
        grid[-1].xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: format_clock(seconds, tenths=step < 1)))
        patches = [Patch(color=color, label=name) for color, name in zip(colors, self.classes, strict=True)]
        figure.legend(handles=patches[::-1], loc="outside right upper", fontsize=9, frameon=False)
        if len(shown) < self.num_faces:
            title += f"; the {len(shown)} longest of {self.num_faces} faces"
        figure.suptitle(title, fontsize=11)
        return figure


def format_clock(seconds: float, tenths: bool = False) -> str:
    """Format 75 s as 1:15, or 1:15.0 with tenths, and two hours as 2:00:00."""
    whole, tenth = divmod(round(10 * seconds), 10)
    hours, minutes = divmod(whole // 60, 60)
    text = f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
    return f"{text}.{tenth}" if tenths else text
