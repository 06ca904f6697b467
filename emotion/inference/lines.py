"""Faces as lines of a table: JSON lines or CSV, one for each face of each frame."""

import csv
import json
from collections.abc import Sequence
from typing import Any, TextIO

from emotion.inference.frames import Seen

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
