"""A table of predictions that grows row by row, as jsonl or csv, in a file or on standard output."""

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from emotion.errors import UserError
from emotion.inference.frames import FrameResult
from emotion.inference.predictor import COLUMNS
from emotion.io.atomic import write_text, writing


class PredictionTable:
    """Rows of faces, written at once for each frame; if the disk is full, none of the frame's.

    Args:
        path: The file, which the first rows replace; None for standard output.
        table_format: jsonl or csv.
        classes: Class names in the order of the probabilities.

    Raises:
        UserError: Standard output is closed.
    """

    def __init__(self, path: Path | None, table_format: str, classes: Sequence[str]) -> None:
        if path is None and sys.stdout is None:
            raise UserError("output=- writes to standard output, which is closed; expected output=FOLDER.")
        self.path, self.is_csv = path, table_format == "csv"
        self.header = ["source", "frame", "time", "face", *COLUMNS, *classes]
        self.is_empty = True

    def add(self, result: FrameResult) -> None:
        """Write the faces of a frame, after the header if they are the first of a csv."""
        text = self._format(result)
        if self.path is None:
            _print(text)
        elif self.is_empty:
            write_text(self.path, text)
        else:
            _append(self.path, text.encode("utf-8"))
        self.is_empty = False

    def _format(self, result: FrameResult) -> str:
        frame, text = result.frame, io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        if self.is_csv and self.is_empty:
            rows.writerow(self.header)
        source, time = replace_surrogates(frame.source), None if frame.time is None else round(frame.time, 3)
        for number, face in zip(result.face_ids, result.faces, strict=True):
            face = replace(face, box=face.box.scaled(frame.scale))
            if self.is_csv:
                rows.writerow([source, frame.number, time, number, *face.to_row().values()])
            else:
                row = {"source": source, "frame": frame.number, "time": time, "face": number} | face.to_dict()
                text.write(f"{json.dumps(row)}\n")
        return text.getvalue()


def replace_surrogates(text: str) -> str:
    """Replace characters of a file name that are not valid Unicode by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _print(text: str) -> None:
    with writing("standard output"):
        sys.stdout.write(text)
        sys.stdout.flush()


def _append(path: Path, content: bytes) -> None:
    with writing(path), path.open("ab", buffering=0) as file:
        end, rest = file.tell(), memoryview(content)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(end)
            raise
