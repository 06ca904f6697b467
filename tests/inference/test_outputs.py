import csv
import json
from io import StringIO
from pathlib import Path

import numpy as np

from emotion.inference.detectors import Box
from emotion.inference.frames import Frame, Seen
from emotion.inference.outputs import COLUMNS, Lines
from emotion.inference.predictor import Face

FACE = Face(
    Box(1.26, -2, 30, 0.91234), ("happy", "sad"), np.array([0.75, 0.25], np.float32), np.zeros((2, 2), np.uint8)
)
PIXELS = np.zeros((2, 2, 3), np.uint8)
OF_VIDEO = Seen(Frame("a, b.mp4", Path("x"), PIXELS, 7, 0.28004), [FACE, FACE], [3, 1])
OF_PICTURE = Seen(Frame("ü\udcff.jpg", Path("x"), PIXELS), [FACE], [1])


def written(kind: str, *found: Seen) -> str:
    file = StringIO(newline="")
    lines = Lines(file, kind, FACE.classes)
    for one in found:
        lines.add(one)
    return file.getvalue()


def test_json_lines_hold_everything_of_a_face() -> None:
    first, second, third = (json.loads(line) for line in written("jsonl", OF_VIDEO, OF_PICTURE).splitlines())
    assert first == {
        "source": "a, b.mp4", "frame": 7, "time": 0.28, "face": 3, "box": [1.3, -2.0, 30.0, 30.0], "score": 0.912,
        "label": "happy", "probability": 0.75, "probabilities": {"happy": 0.75, "sad": 0.25},
    }  # fmt: skip
    assert second == first | {"face": 1}
    assert third == first | {"source": "ü\udcff.jpg", "frame": None, "time": None, "face": 1}


def test_a_box_is_in_pixels_of_the_source_however_much_that_was_shrunk() -> None:
    shrunk = OF_PICTURE._replace(frame=OF_PICTURE.frame._replace(factor=2.5))
    assert json.loads(written("jsonl", shrunk))["box"] == [3.1, -5.0, 75.0, 75.0]


def test_csv_has_a_column_for_each_class() -> None:
    rows = list(csv.DictReader(StringIO(written("csv", OF_VIDEO, OF_PICTURE))))
    assert tuple(rows[0]) == (*COLUMNS, "happy", "sad")
    assert rows[0] == {
        "source": "a, b.mp4", "frame": "7", "time": "0.28", "face": "3", "left": "1.3", "top": "-2.0", "width": "30.0",
        "height": "30.0", "score": "0.912", "label": "happy", "probability": "0.75", "happy": "0.75", "sad": "0.25",
    }  # fmt: skip
    assert (rows[2]["source"], rows[2]["frame"], rows[2]["time"]) == ("ü?.jpg", "", "")


def test_where_there_is_no_face_there_is_no_line() -> None:
    nothing = OF_PICTURE._replace(faces=[], numbers=[])
    assert written("jsonl", nothing) == ""
    assert written("csv", nothing) == ",".join([*COLUMNS, "happy", "sad"]) + "\n"
