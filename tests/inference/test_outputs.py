import csv
import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from emotion.data.crop import Box
from emotion.errors import UserError
from emotion.inference.frames import Frame, FrameResult, VideoStream
from emotion.inference.outputs import Outputs
from emotion.inference.predictor import COLUMNS, Face
from emotion.inference.table import PredictionTable

FACE = Face(
    Box(1.26, -2, 30, 0.91234), ("happy", "sad"), np.array([0.75, 0.25], np.float32), np.array([[0, 255]], np.uint8)
)
PIXELS = np.zeros((2, 2, 3), np.uint8)
VIDEO_RESULT = FrameResult(Frame("a, b.mp4", Path("x"), PIXELS, 7, 0.28004), [FACE, FACE], [3, 1])
IMAGE_RESULT = FrameResult(Frame("ü\udcff.jpg", Path("x"), PIXELS), [FACE], [1])


def write(table_format: str, *results: FrameResult) -> str:
    table = PredictionTable(Path("table"), table_format, FACE.classes)
    for result in results:
        table.add(result)
    return Path("table").read_text(encoding="utf-8")


def test_json_lines() -> None:
    first, second, third = (json.loads(line) for line in write("jsonl", VIDEO_RESULT, IMAGE_RESULT).splitlines())
    assert first == {
        "source": "a, b.mp4", "frame": 7, "time": 0.28, "face": 3, "box": [1.3, -2.0, 30.0, 30.0], "angle": 0.0,
        "score": 0.912, "label": "happy", "probability": 0.75, "probabilities": {"happy": 0.75, "sad": 0.25},
    }  # fmt: skip
    assert second == first | {"face": 1}
    assert third == first | {"source": "ü?.jpg", "frame": None, "time": None, "face": 1}


def test_boxes_are_in_pixels_of_the_source() -> None:
    shrunk = IMAGE_RESULT._replace(frame=IMAGE_RESULT.frame._replace(scale=2.5))
    assert json.loads(write("jsonl", shrunk))["box"] == [3.1, -5.0, 75.0, 75.0]


def test_csv_has_a_column_per_class() -> None:
    rows = list(csv.DictReader(StringIO(write("csv", VIDEO_RESULT, IMAGE_RESULT))))
    assert tuple(rows[0]) == ("source", "frame", "time", "face", *COLUMNS, "happy", "sad")
    assert rows[0] == {
        "source": "a, b.mp4", "frame": "7", "time": "0.28", "face": "3", "left": "1.3", "top": "-2.0", "width": "30.0",
        "height": "30.0", "angle": "0.0", "score": "0.912", "label": "happy", "probability": "0.75", "happy": "0.75",
        "sad": "0.25",
    }  # fmt: skip
    assert (rows[2]["source"], rows[2]["frame"], rows[2]["time"]) == ("ü?.jpg", "", "")


def test_without_faces_there_are_no_rows() -> None:
    empty = IMAGE_RESULT._replace(faces=[], face_ids=[])
    assert write("jsonl", empty) == ""
    assert write("csv", empty) == ",".join(["source", "frame", "time", "face", *COLUMNS, "happy", "sad"]) + "\n"


def test_each_source_has_results_of_its_own(tmp_path: Path) -> None:
    with Outputs(tmp_path, "jsonl", True, FACE.classes) as outputs:
        for name in ("photo", "photo.png", "x" * 251 + ".png", "x" * 255):
            outputs.add_image(FrameResult(Frame(name, Path(name), PIXELS), [FACE], [1]))
        for name in ("clip.avi", "clip.avi.mp4"):
            frame = Frame(name, Path(name), np.zeros((64, 64, 3), np.uint8), 0, 0.0)
            with outputs.open_video(VideoStream(name, Path(name), iter(()), 5.0), name) as video:
                video.add(FrameResult(frame, [FACE], [1]))
    assert [path.name for path in outputs.written[1:]] == [
        *("photo.png", "photo_2.png", "x" * 251 + ".png", "x" * 249 + "_2.png"),
        *("clip.avi.mp4", "clip.avi.png", "clip.avi_2.mp4", "clip.avi.mp4.png"),
    ]
    assert all(path.is_file() for path in outputs.written)


def test_no_source_is_overwritten(tmp_path: Path) -> None:
    table, image = tmp_path / "predictions.csv", tmp_path / "annotated/a.png"
    image.parent.mkdir()
    for source in (table, image):
        source.write_text("a source")
        with Outputs(tmp_path, "csv", True, FACE.classes, {source.resolve()}) as outputs:
            with pytest.raises(UserError, match=f"{source} is a source and would be overwritten; choose another"):
                outputs.add_image(FrameResult(Frame("b/a.png", Path("a.png"), PIXELS), [FACE], [1]))
        assert source.read_text() == "a source"


def test_a_closed_standard_output_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    with Outputs(None, "jsonl", False, FACE.classes) as outputs:
        with pytest.raises(UserError, match="output=- writes to standard output, which is closed"):
            outputs.add_image(IMAGE_RESULT)
