"""What faces showed over time, in a memory that does not grow with it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emotion.inference.annotate import colours_of
from emotion.inference.frames import Seen
from emotion.inference.tracking import GAP_SECONDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 600  # stretches of time; where they do not suffice, two become one
LEAST_WIDTH = 0.02  # seconds of one, to begin with
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200)  # of the axis
KEPT, SURE = 32, 8  # faces; of those that have gone, all but the longest are forgotten first


class History:
    """One face: what it showed in each stretch of time, as sums over its frames."""

    def __init__(self, number: int, classes: int) -> None:
        self.number = number
        self.frames = np.zeros(BINS, np.int64)
        self.times = np.zeros(BINS)
        self.shares = np.zeros((BINS, classes))
        self.first = self.last = 0.0

    @property
    def length(self) -> int:
        """In frames."""
        return int(self.frames.sum())

    @property
    def mean(self) -> NDArray[np.float64]:
        """Its probabilities (K,) over all of its frames."""
        found: NDArray[np.float64] = self.shares.sum(0) / max(1, self.length)
        return found

    def halve(self) -> None:
        """Two stretches of time become one."""
        for name in ("frames", "times", "shares"):
            former = getattr(self, name)
            pairs = former.reshape(BINS // 2, 2, *former.shape[1:]).sum(1)
            setattr(self, name, np.concatenate([pairs, np.zeros_like(pairs)]))

    def parts(self, gap: float) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Times (n,) and probabilities (n, K) of each part without a gap longer than that, in seconds."""
        there = np.flatnonzero(self.frames)
        times = self.times[there] / self.frames[there]
        shares = self.shares[there] / self.frames[there, None]
        cuts = np.flatnonzero(np.diff(times) > gap) + 1
        return list(zip(np.split(times, cuts), np.split(shares, cuts), strict=True))


class Timeline:
    """The faces of a video over time; of very many, the longest and the latest.

    Args:
        classes: in the order of the probabilities.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.width = LEAST_WIDTH
        self.histories: dict[int, History] = {}
        self.numbers = 0
        self.frames = 0
        self.end = 0.0

    def add(self, found: Seen) -> None:
        """The faces of a frame."""
        time = found.frame.time or 0.0
        self.frames += 1
        self.end = max(self.end, time)
        while time >= BINS * self.width:
            self.width *= 2
            for history in self.histories.values():
                history.halve()
        for face, number in zip(found.faces, found.numbers, strict=True):
            if number not in self.histories:
                self.numbers += 1
                self._make_room()
                self.histories[number] = History(number, len(self.classes))
                self.histories[number].first = time
            history = self.histories[number]
            place = int(time / self.width)
            history.frames[place] += 1
            history.times[place] += time
            history.shares[place] += face.shares
            history.last = time

    def longest(self, most: int) -> list[History]:
        """The faces of most frames, in the order in which they came."""
        found = sorted(self.histories.values(), key=lambda history: -history.length)[:most]
        return sorted(found, key=lambda history: history.number)

    def _make_room(self) -> None:
        if len(self.histories) >= KEPT:
            sure = self.longest(SURE)
            others = [history for history in self.histories.values() if history not in sure]
            del self.histories[min(others, key=lambda history: history.last).number]

    def drawn(self, title: str, most: int = 4) -> "Figure":
        """The longest faces, one below the other: probabilities over time, on top of each other to 100 %."""
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
        from matplotlib.ticker import FuncFormatter, MultipleLocator

        longest = self.longest(most)
        least = 0.01 * max(history.length for history in longest)  # what is seen for less could hardly be seen here
        shown = [history for history in longest if history.length >= least]
        figure = Figure(figsize=(11, 1.4 + 1.75 * len(shown)), layout="constrained")
        grid = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        colours = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colours_of(self.classes)]
        reach = max(self.end, LEAST_WIDTH)
        for axes, history in zip(grid, shown, strict=True):
            for times, shares in history.parts(max(GAP_SECONDS, 3 * self.width)):
                narrow = times[-1] - times[0] < reach / 300
                if narrow:  # and would not be seen
                    times, shares = times[:1] + np.array([0, reach / 300]), np.repeat(shares.mean(0)[None], 2, 0)
                edge = 0 if narrow else 0.4
                axes.stackplot(times, 100 * shares.T, colors=colours, linewidth=edge, edgecolor="white")
            best = int(history.mean.argmax())
            words = f"face {history.number}: {self.classes[best]} {100 * history.mean[best]:.0f} % on average"
            axes.set_title(words, fontsize=10, loc="left")
            axes.set(xlim=(0, reach), ylim=(0, 100), ylabel="%")
            axes.set_yticks([0, 50, 100])
            axes.spines[["top", "right"]].set_visible(False)
        grid[-1].set_xlabel("time")
        step = next((step for step in STEPS if reach <= 10 * step), 86400 * -(-reach // 864000))
        grid[-1].xaxis.set_major_locator(MultipleLocator(step))
        grid[-1].xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds, tenths=step < 1)))
        patches = [Patch(color=colour, label=name) for colour, name in zip(colours, self.classes, strict=True)]
        figure.legend(handles=patches[::-1], loc="outside right upper", fontsize=9, frameon=False)
        figure.suptitle(title, fontsize=11)
        return figure


def clock(seconds: float, tenths: bool = False) -> str:
    """75 s as 1:15, or 1:15.0 with tenths; two hours as 2:00:00."""
    whole, rest = divmod(round(10 * seconds), 10)
    hours, minutes = divmod(whole // 60, 60)
    text = f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
    return f"{text}.{rest}" if tenths else text
