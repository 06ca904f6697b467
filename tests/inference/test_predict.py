import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import emotion
from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.predict import Predicted, predict
from tests.inference.videos import cut, film, moving_face, read
from tests.pictures import FOUND, packed, scene

OUT = Path("out")
TWO = scene((50, 100, 240), (400, 200, 160))


def predicted(*overrides: str, folder: Path | None = OUT) -> Predicted:
    return predict(compose("predict", "accelerator=cpu", *overrides), folder)


def lines(folder: Path = OUT) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def saved(path: str, picture: np.ndarray, **settings: object) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **settings)
    return Path(path)


def test_a_picture_alone_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    saved("two.png", TWO)
    assert predicted("source=two.png") == Predicted(1, 2, [OUT / "predictions.jsonl", OUT / "annotated/two.png"])
    first, second = lines()
    assert [(one["source"], one["frame"], one["time"], one["face"]) for one in (first, second)] == [
        ("two.png", None, None, 1), ("two.png", None, None, 2),
    ]  # fmt: skip
    assert first["box"] == pytest.approx([50, 100, 240, 240], abs=40)
    with Image.open(OUT / "annotated/two.png") as drawn:
        assert drawn.size == (640, 480)
        assert (np.asarray(drawn) != TWO).any()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "FastCNN (fast_cnn): angry, disgust, fear, happy, sad, surprise, neutral"
    assert said[1].startswith(f"two.png: 2 faces: {first['label']} {100 * first['probability']:.0f} %, ")
    assert said[2:] == ["wrote out/predictions.jsonl", "wrote out/annotated/two.png"]


def test_the_library_sees_what_the_command_sees() -> None:
    path = saved("two.png", TWO)
    predicted("source=two.png")
    found = emotion.load(accelerator="cpu").predict(path)
    for face, line in zip(found, lines(), strict=True):
        assert line["box"] == pytest.approx([face.box.left, face.box.top, face.box.side, face.box.side], abs=0.05)
        assert line["probabilities"] == pytest.approx(face.probabilities, abs=1e-4)


def test_pictures_of_every_kind_show_the_same_face() -> None:
    face = scene((200, 100, 240))
    turned = Image.fromarray(face).rotate(-90, expand=True)
    exif = turned.getexif()
    exif[0x0112] = 8
    Path("kinds").mkdir()
    turned.save("kinds/turned.png", exif=exif)
    saved("kinds/grey.bmp", face[..., 0])
    saved("kinds/sixteen.png", face[..., 0].astype(np.uint16) * 257)
    saved("kinds/clear.png", np.dstack([face, np.full((480, 640), 255, np.uint8)]))
    Image.fromarray(face).convert("CMYK").save("kinds/print.jpg", quality=95)
    Image.fromarray(face).resize((6400, 4800)).save("kinds/huge.jpg", quality=95)
    assert predicted("source=kinds", "annotate=false")[:2] == (6, 6)
    boxes = {line["source"]: np.array(line["box"]) for line in lines()}
    boxes["kinds/huge.jpg"] *= 640 / 6400
    for box in boxes.values():
        assert box == pytest.approx(boxes["kinds/grey.bmp"], abs=12)


def test_one_that_cannot_be_read_is_said_and_the_others_are_judged(capsys: pytest.CaptureFixture[str]) -> None:
    saved("photos/a.png", TWO)
    saved("photos/c.png", scene())
    Path("photos/b.jpg").write_bytes(b"no picture")
    Path("photos/d.mp4").write_bytes(b"no video")
    film(Path("photos/e.mp4"), moving_face(3))
    with pytest.raises(UserError, match="2 of 5 files cannot be read; the others are judged"):
        predicted("source=photos")
    assert [line["source"] for line in lines()] == ["photos/a.png"] * 2 + ["photos/e.mp4"] * 3
    heard = capsys.readouterr()
    assert "photos/c.png: no face\n" in heard.out
    assert "wrote out/annotated/e.mp4\n" in heard.out
    assert [line.split(" cannot be read")[0] for line in heard.err.splitlines()] == [
        "warning: photos/b.jpg", "warning: photos/d.mp4",
    ]  # fmt: skip


def test_no_face_is_said_and_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    saved("wall.png", scene())
    assert predicted("source=wall.png") == Predicted(1, 0, [OUT / "predictions.jsonl"])
    assert lines() == []
    heard = capsys.readouterr()
    assert "wall.png: no face\n" in heard.out
    assert heard.err.startswith("No face was found. Smaller ones are with detector.smallest=0.02")


@pytest.mark.parametrize(("kind", "size"), [("JPEG", (9000, 6000)), ("PNG", (6000, 4500))])
def test_a_box_is_in_the_pixels_of_the_file_whatever_is_shrunk_to_look_at_it(kind: str, size: tuple[int, int]) -> None:
    wide, high = size
    place = [wide // 2, high // 3, high // 2]
    path = Path(f"large.{kind.lower()}")
    path.write_bytes(packed(scene(tuple(place), width=wide, height=high), kind))
    (face,) = emotion.load(accelerator="cpu").predict(path)
    assert list(face.box[:3]) == pytest.approx(place, abs=high / 12)
    predicted(f"source={path}", "annotate=false")
    assert lines()[0]["box"] == pytest.approx([*face.box[:3], face.box.side], abs=0.1)


def test_faces_cropped_already_need_no_detector() -> None:
    for number, face in enumerate(FOUND):
        saved(f"faces/{number}.png", face)
    assert predicted("source=faces", "detector=none", "format=csv")[:2] == (6, 6)
    rows = list(csv.DictReader((OUT / "predictions.csv").read_text().splitlines()))
    assert {(row["left"], row["top"], row["width"], row["height"]) for row in rows} == {("0.0", "0.0", "48.0", "48.0")}
    expected = [face.label for (face,) in emotion.load(detector="none", accelerator="cpu").predict(list(FOUND))]
    assert [row["label"] for row in rows] == expected


def test_a_video_gives_lines_an_annotated_video_and_a_timeline(capsys: pytest.CaptureFixture[str]) -> None:
    film(Path("clip.avi"), moving_face(30), rate=10, codec="MJPG")
    assert predicted("source=clip.avi") == Predicted(
        1, 1, [OUT / "predictions.jsonl", OUT / "annotated/clip.avi.mp4", OUT / "timelines/clip.avi.png"]
    )
    found = lines()
    assert [line["frame"] for line in found] == list(range(30))
    assert [line["time"] for line in found] == pytest.approx([0.1 * number for number in range(30)], abs=0.002)
    assert {line["face"] for line in found} == {1}
    assert [line["box"][0] for line in found] == pytest.approx(
        [10 + (180 // 29) * number for number in range(30)], abs=25
    )
    assert [frame.shape for frame in read(OUT / "annotated/clip.avi.mp4")] == [(480, 640, 3)] * 30
    with Image.open(OUT / "timelines/clip.avi.png") as drawn:
        assert drawn.width > 1000
    assert "clip.avi: 30 frames of 3.0s, 1 face: face 1 " in capsys.readouterr().out


def test_a_part_of_a_video_is_judged_as_asked() -> None:
    film(Path("clip.mp4"), moving_face(30), rate=10)
    predicted("source=clip.mp4", "every=5", "seconds=2", "annotate=false", "smoothing=0")
    assert [line["frame"] for line in lines()] == [0, 5, 10, 15]


def test_smoothing_changes_only_what_comes_later() -> None:
    film(Path("clip.mp4"), [scene((60 + 2 * n, 50, 140), width=320, height=240) for n in range(8)], rate=10)
    shares = {}
    for seconds in (0, 1):
        predicted("source=clip.mp4", f"smoothing={seconds}", "annotate=false")
        shares[seconds] = np.array([list(line["probabilities"].values()) for line in lines()])
    expected = shares[0][0]
    for number, own in enumerate(shares[0]):
        expected = expected + (1 - np.exp(-0.1)) * (own - expected) if number else own
        assert shares[1][number] == pytest.approx(expected, abs=3e-4)


def test_a_cut_video_is_judged_as_far_as_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    cut(film(Path("clip.avi"), moving_face(20), codec="MJPG"))
    assert predicted("source=clip.avi", "annotate=false").sources == 1
    assert 0 < lines()[-1]["frame"] < 15
    said = capsys.readouterr().err
    assert said.startswith(
        f"warning: clip.avi ends after {lines()[-1]['frame'] + 1} of the 20 frames that it announces"
    )


def test_standard_output_takes_the_lines_and_nothing_else_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    saved("two.png", TWO)
    assert predicted("source=[two.png]", "output=-", folder=None).written == []
    heard = capsys.readouterr()
    assert [json.loads(line)["face"] for line in heard.out.splitlines()] == [1, 2]
    assert heard.err.splitlines() == ["FastCNN (fast_cnn): angry, disgust, fear, happy, sad, surprise, neutral"]
    assert [path.name for path in Path.cwd().iterdir()] == ["two.png"]


def test_standard_input_may_be_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    with saved("two.webp", TWO).open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert predicted("source=-").written[1] == OUT / "annotated/standard_input.png"
    assert [line["source"] for line in lines()] == ["standard input"] * 2


def test_standard_input_may_be_many_pictures_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [*moving_face(12)[:3], scene((400, 200, 200))]
    Path("stream.mjpeg").write_bytes(b"".join(packed(one, "JPEG") for one in pictures))
    with Path("stream.mjpeg").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert predicted("source=-", "fps=10")[:2] == (1, 2)
    assert [(line["frame"], line["time"]) for line in lines()] == [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3)]
    assert len(read(OUT / "annotated/standard_input.mp4")) == 4


def test_a_run_of_one_s_own_is_a_checkpoint(small_run: Callable[..., Path]) -> None:
    small_run(Path("run"), "trainer.max_epochs=1")
    saved("two.png", TWO)
    predicted("source=two.png", "checkpoint=[run,run]", "tta=flip")
    assert list(lines()[0]["probabilities"]) == ["happiness", "surprise", "sadness", "anger", "disgust", "fear"]


def test_a_source_is_never_overwritten() -> None:
    path = saved("out/annotated/two.png", TWO)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"two\.png is a source itself and would be replaced; give another output"):
        predicted("source=out/annotated/two.png")
    assert path.read_bytes() == before


WRONG = {
    "source=nothing.png": r"nothing\.png is not there; expected a picture, a video, a folder",
    "source=x.png": r"x\.png cannot be read .*expected a picture: PNG, JPEG, WEBP, BMP",
    "source=x.mp4": r"x\.mp4 cannot be read as a video",
    "source=63": "camera 63 gives no picture",
    "source={a:1}": "source=.*: expected a picture, a video",
    "every=0": "every=0: expected a whole number of 1 or more",
    "smoothing=-1": "smoothing=-1: expected a number of 0 or more",
    "seconds=0": "seconds=0: expected a number of more than 0, or null",
    "fps=nan": "fps=nan: expected a number of more than 0",
    "format=xml": "format=xml: expected jsonl, csv",
    "tta=many": "tta=many: expected one of none, flip, ten_crop",
    "checkpoint=nothing": "nothing is not there; give a run folder",
    "accelerator=abacus": "accelerator=abacus: expected auto, cpu, gpu",
    "output=x.png": r"output=x\.png is a file; expected a folder, or -",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_one_message_and_nothing_is_written(wrong: str) -> None:
    for name in ("x.png", "x.mp4"):
        Path(name).write_bytes(b"nothing that can be read")
    saved("right.png", scene())
    with pytest.raises(UserError, match=WRONG[wrong]):
        predicted(*(() if "source" in wrong else ("source=right.png",)), wrong)
    assert not OUT.exists()


def started(*arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "emotion.predict", "accelerator=cpu", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_a_stream_is_judged_picture_by_picture_into_a_pipe() -> None:
    pictures = [packed(picture, "JPEG", quality=90) for picture in moving_face(6)]
    with started("source=-", "output=-", "fps=2") as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(pictures[0] + pictures[1])
        child.stdin.flush()
        found = [json.loads(child.stdout.readline()) for _ in range(2)]  # with more to come
        for picture in pictures[2:]:
            child.stdin.write(picture)
            child.stdin.flush()
            found.append(json.loads(child.stdout.readline()))
        child.terminate()  # not SIGINT, which a shell's background jobs are born deaf to
        assert child.wait() == 143
        assert child.stdout.read() == b""
        assert [line["time"] for line in found] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
        assert {line["face"] for line in found} == {1}
    assert not list(Path.cwd().iterdir())


def test_sigterm_amid_a_video_leaves_whole_files() -> None:
    with started("source=-", "output=out") as child:
        assert child.stdin
        child.stdin.write(b"".join(packed(picture, "JPEG", quality=90) for picture in moving_face(5)))
        child.stdin.flush()
        table = OUT / "predictions.jsonl"
        while child.poll() is None and not (table.is_file() and table.read_text().count("\n") == 5):
            time.sleep(0.05)
        child.terminate()
        assert child.wait() == 143
        assert child.stdout
        said = child.stdout.read().decode()
    assert [line["frame"] for line in lines()] == [0, 1, 2, 3, 4]
    assert len(read(OUT / "annotated/standard_input.mp4")) in (4, 5)  # the last may not have been drawn yet
    assert "standard input: " in said
    assert {path.name for path in OUT.rglob("*.*")} == {
        "predictions.jsonl", "standard_input.mp4", "standard_input.png",
    }  # fmt: skip


def test_names_alone_are_sources_whatever_is_in_them() -> None:
    with started("nothing (1).jpg") as child:
        assert child.stderr
        assert child.stderr.read().decode().startswith("error: nothing (1).jpg is not there; expected a picture")
        assert child.wait() == 2
    assert not list(Path.cwd().rglob("*.jsonl"))
