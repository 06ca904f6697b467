"""Pictures and videos gone through: each is judged, handed on and told of; one that cannot be read is no end."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from emotion.errors import UserError
from emotion.inference.frames import MOST, Frame, Reel, Seen, seen
from emotion.inference.images import read_picture
from emotion.inference.inputs import File
from emotion.inference.outputs import Outputs, printable
from emotion.inference.predictor import Face, Predictor
from emotion.inference.timeline import History, Timeline
from emotion.inference.tracking import Tracker
from emotion.inference.video import video
from emotion.reporting.text import duration

TOLD = 6  # faces of a picture or a video, at most
CUT = 0.98  # share of the frames announced below which a video is said to have been cut; some only estimate it


class Judging:
    """What is judged so far.

    Args:
        predictor: finds faces and judges them.
        outputs: takes what is seen.
        words: where people are told what is seen.
        warnings: where they are told what is wrong.

    Attributes:
        sources: pictures and videos that were read.
        faces: in them; one that a video shows for long counts once.
        unreadable: how many were not.
    """

    def __init__(self, predictor: Predictor, outputs: Outputs, words: Console, warnings: Console) -> None:
        self.predictor, self.outputs, self.words, self.warnings = predictor, outputs, words, warnings
        self.sources = self.faces = self.unreadable = 0

    def files(self, files: list[File], every: int, smoothing: float, seconds: float | None) -> None:
        """Files one after another; of videos every so many frames of the first `seconds`.

        Raises:
            UserError: one cannot be read and is the only one.
        """
        alone = len(files) == 1
        for videos, some in groupby(files, key=lambda file: file.video):
            if not videos:
                self.stills(self._read(some, alone))
                continue
            for file in some:
                try:
                    reel = video(file.path, file.kept, every)
                except UserError as error:
                    self._leave_out(error, alone)
                else:
                    self.moving(reel, smoothing, seconds)

    def stills(self, frames: Iterable[Frame]) -> None:
        """Pictures that have nothing to do with each other."""
        for found in seen(frames, self.predictor, None):
            self.outputs.still(found)
            self.sources += 1
            self.faces += len(found.faces)
            self._say(f"{found.frame.source}: {_faces(found.faces)}")

    def moving(self, reel: Reel, smoothing: float, seconds: float | None) -> None:
        """A video, its faces followed and their probabilities averaged over so many seconds."""
        tracker = Tracker(smoothing)
        title = f"{printable(reel.source)}: {self.predictor.judge.name}"
        timeline = None
        try:
            with self.outputs.moving(reel, title) as moving, self._progress(reel) as progress:
                timeline = moving.timeline
                name = printable(reel.source)
                bar = progress.add_task("", total=None if seconds else reel.length, source=name)
                for found in seen(reel.until(seconds), self.predictor, tracker, 1 if reel.live else MOST):
                    moving.add(found)
                    progress.update(bar, completed=reel.read, description=_now(found))
        finally:  # what was seen is told, however it ended
            if timeline and timeline.frames:
                self.sources += 1
                self.faces += timeline.numbers
                self._say(f"{reel.source}: {_over_time(timeline, reel)}")
        if reel.length and reel.read < CUT * reel.length - 1:
            self._warn(
                f"{reel.source} ends after {reel.read} of the {reel.length} frames that it announces; "
                f"it is judged as far as it goes."
            )
        if reel.damaged:
            self._warn(f"{reel.source}: {reel.damaged} of {reel.read} frames cannot be read and are left out.")

    def _read(self, files: Iterable[File], alone: bool) -> Iterator[Frame]:
        for file in files:
            try:
                picture = read_picture(file.path, printable(str(file.path)))
            except UserError as error:
                self._leave_out(error, alone)
            else:
                yield Frame(str(file.path), file.kept, picture.pixels, factor=picture.factor)

    def _leave_out(self, error: UserError, alone: bool) -> None:
        if alone:
            raise error
        self.unreadable += 1
        self._warn(str(error))

    def _say(self, text: str) -> None:
        self.words.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def _warn(self, text: str) -> None:
        self.warnings.print(f"warning: {printable(text)}", markup=False, highlight=False, soft_wrap=True)

    def _progress(self, reel: Reel) -> Progress:
        columns = [SpinnerColumn(), TextColumn("{task.fields[source]}", markup=False)]
        columns += [] if reel.length is None else [BarColumn(20), TimeRemainingColumn(compact=True)]
        columns += [TextColumn("{task.completed} frames"), TextColumn("{task.description}", markup=False)]
        shown = self.words.is_terminal and not self.words.quiet
        return Progress(*columns, console=self.words, transient=True, disable=not shown)


def _faces(faces: list[Face]) -> str:
    """2 faces: happy 93 %, sad 51 %."""
    if not faces:
        return "no face"
    told = [f"{face.label} {100 * face.probability:.0f} %" for face in faces[:TOLD]]
    more = [f"and {len(faces) - TOLD} more"] if len(faces) > TOLD else []
    return f"{_counted(len(faces), 'face')}: {', '.join(told + more)}"


def _now(found: Seen) -> str:
    return ", ".join(f"{face.label} {100 * face.probability:.0f} %" for face in found.faces[:3])


def _over_time(timeline: Timeline, reel: Reel) -> str:
    """300 frames of 10.0s, 2 faces: face 1 happy 81 % for 9.8s, face 2 sad 55 % for 3.0s."""
    faces = _counted(timeline.numbers, "face") if timeline.numbers else "no face"
    length = duration(timeline.end + 1 / reel.rate)
    told = [_history(history, timeline, reel) for history in timeline.longest(TOLD)]
    more = [f"and {timeline.numbers - TOLD} more"] if timeline.numbers > TOLD else []
    start = f"{_counted(timeline.frames, 'frame')} of {length}, {faces}"
    return f"{start}: {', '.join(told + more)}" if told else start


def _history(history: History, timeline: Timeline, reel: Reel) -> str:
    best = int(history.mean.argmax())
    seconds = history.last - history.first + 1 / reel.rate
    return f"face {history.number} {timeline.classes[best]} {100 * history.mean[best]:.0f} % for {duration(seconds)}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
