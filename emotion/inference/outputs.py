"""Where what was seen goes: lines of a table, annotated pictures and videos, timelines."""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from PIL import Image

from emotion.data.readers.images import SUFFIXES
from emotion.errors import UserError
from emotion.inference.annotate import annotated
from emotion.inference.frames import Reel, Seen
from emotion.inference.timeline import Timeline
from emotion.inference.video import Film
from emotion.io.atomic import write_atomically

KINDS = ("jsonl", "csv")
BOX = ("left", "top", "width", "height")
COLUMNS = ("source", "frame", "time", "face", *BOX, "score", "label", "probability")
"""Of CSV; the classes follow, each with its probability. JSON has the four of the box, and the classes, in one."""


class Lines:
    """Writes them to an open file, each frame's at once.

    Args:
        file: of text; CSV wants one that leaves the ends of lines alone (newline="").
        kind: jsonl or csv.
        classes: in the order of the probabilities.
    """

    def __init__(self, file: TextIO, kind: str, classes: Sequence[str]) -> None:
        self.file, self.kind = file, kind
        if kind == "csv":
            self._write([[*COLUMNS, *classes]])

    def add(self, found: Seen) -> None:
        """The faces of a frame."""
        rows = [_row(found, place) for place in range(len(found.faces))]
        if self.kind == "csv":
            self._write([_flat(row) for row in rows])
        else:
            self.file.write("".join(f"{json.dumps(row)}\n" for row in rows))
            self.file.flush()

    def _write(self, rows: list[list[Any]]) -> None:
        csv.writer(self.file, lineterminator="\n").writerows(rows)
        self.file.flush()


def printable(text: str) -> str:
    """A name with what is no Unicode in it, as file systems allow, replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _row(found: Seen, place: int) -> dict[str, Any]:
    frame, face = found.frame, found.faces[place]
    left, top, side, score = face.box.enlarged(frame.factor)
    return {
        "source": frame.source,
        "frame": frame.number,
        "time": None if frame.time is None else round(frame.time, 3),
        "face": found.numbers[place],
        "box": [round(float(value), 1) for value in (left, top, side, side)],
        "score": round(score, 3),
        "label": face.label,
        "probability": round(face.probability, 4),
        "probabilities": {name: round(value, 4) for name, value in face.probabilities.items()},
    }


def _flat(row: dict[str, Any]) -> list[Any]:
    box, shares = row["box"], row["probabilities"].values()
    first = [printable(row["source"]), row["frame"], row["time"], row["face"]]
    return [*first, *box, row["score"], row["label"], row["probability"], *shares]


TABLE, DRAWN, OVER_TIME = "predictions", "annotated", "timelines"
QUALITY = 92  # of JPEG and WEBP


class Outputs:
    """A folder that fills while faces are seen, and is whole whenever it is left; or standard output alone.

    Args:
        folder: made with the first picture; None sends the lines to standard output, and leaves out all else.
        kind: jsonl or csv.
        annotate: whether pictures, videos and timelines are drawn.
        classes: in the order of the probabilities.

    Attributes:
        written: the files so far.
    """

    def __init__(self, folder: Path | None, kind: str, annotate: bool, classes: Sequence[str]) -> None:
        self.folder, self.kind, self.classes = folder, kind, tuple(classes)
        self.drawn_in = folder if annotate else None
        self.written: list[Path] = []
        self.opened = ExitStack()
        self.lines: Lines | None = None

    def __enter__(self) -> "Outputs":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.opened.close()

    def add(self, found: Seen) -> None:
        """The faces of a frame, as lines."""
        if self.lines is None:
            self.lines = self._table()
        self.lines.add(found)

    def still(self, found: Seen) -> None:
        """The faces of a picture, as lines and, where there are any, drawn."""
        self.add(found)
        if self.drawn_in and found.faces:
            path = self.drawn_in / DRAWN / found.frame.kept
            if path.suffix.lower() not in SUFFIXES:
                path = path.with_name(f"{path.name}.png")
            _make_room(path, found.frame.source)
            image = Image.fromarray(annotated(found.frame.picture, found.faces))
            write_atomically(path, lambda temporary: image.save(temporary, quality=QUALITY))
            self.written.append(path)

    @contextmanager
    def moving(self, reel: Reel, title: str) -> Iterator["Moving"]:
        """Takes what is seen of a video; annotated video and timeline are whole when it is left, however that is."""
        timeline = Timeline(self.classes)
        film = self._film(reel)
        try:
            with film or nullcontext():
                yield Moving(self, timeline, film)
        finally:
            if film and film.done:
                self.written.append(film.path)
            if self.drawn_in and timeline.numbers:
                path = self.drawn_in / OVER_TIME / reel.kept.with_name(f"{reel.kept.name}.png")
                _make_room(path, reel.source)
                figure = timeline.drawn(title)
                write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=150))
                self.written.append(path)

    def _film(self, reel: Reel) -> Film | None:
        if not self.drawn_in:
            return None
        name = reel.kept if reel.kept.suffix == ".mp4" else reel.kept.with_name(f"{reel.kept.name}.mp4")
        path = self.drawn_in / DRAWN / name
        _make_room(path, reel.source)
        return Film(path, reel.rate)

    def _table(self) -> Lines:
        if self.folder is None:
            return Lines(sys.stdout, self.kind, self.classes)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{TABLE}.{self.kind}"
        file = self.opened.enter_context(path.open("w", encoding="utf-8", newline=""))
        self.written.insert(0, path)
        return Lines(file, self.kind, self.classes)


class Moving:
    """Takes the frames of one video: into the table, the timeline and, where there is one, the annotated video."""

    def __init__(self, outputs: Outputs, timeline: Timeline, film: Film | None) -> None:
        self.outputs, self.timeline, self.film = outputs, timeline, film

    def add(self, found: Seen) -> None:
        """The faces of the next frame."""
        self.outputs.add(found)
        self.timeline.add(found)
        if self.film:
            self.film.add(annotated(found.frame.picture, found.faces, found.numbers), found.frame.time or 0.0)


def _make_room(path: Path, source: str) -> None:
    """Make a file's folder, unless that file is what is being judged."""
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise UserError(f"{path} is a source itself and would be replaced; give another output=FOLDER.")
    path.parent.mkdir(parents=True, exist_ok=True)
