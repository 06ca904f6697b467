import csv
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

import emotion
from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.predict import PredictionSummary, predict
from tests.images import FACES, encode_animation, encode_image, scene
from tests.inference.videos import moving_face, read_video, truncate, write_video
from tests.web_server import serve_folder

OUT = Path("out")
TWO = scene((50, 100, 240), (400, 200, 160))
NETWORK = "FastCNN (ferplus): neutral, happiness, surprise, sadness, anger, disgust, fear, contempt"


def run_predict(*overrides: str, folder: Path | None = OUT) -> PredictionSummary:
    return predict(compose("predict", "accelerator=cpu", *overrides), folder)


def rows(folder: Path = OUT) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def save(path: str, image: np.ndarray, **settings: object) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **settings)
    return Path(path)


def test_an_image(capsys: pytest.CaptureFixture[str]) -> None:
    save("two.png", TWO)
    summary = run_predict("source=two.png")
    assert summary == PredictionSummary(1, 2, [OUT / "predictions.jsonl", OUT / "annotated/two.png"])
    first, second = rows()
    for row, number in ((first, 1), (second, 2)):
        assert (row["source"], row["frame"], row["time"], row["face"]) == ("two.png", None, None, number)
    assert first["box"] == pytest.approx([50, 100, 240, 240], abs=40)
    with Image.open(OUT / "annotated/two.png") as annotated:
        assert annotated.size == (640, 480)
        assert (np.asarray(annotated) != TWO).any()
    output = capsys.readouterr().out.splitlines()
    assert output[0] == NETWORK
    assert output[1].startswith(f"two.png: 2 faces: {first['label']} {100 * first['probability']:.0f} %, ")
    assert output[2:] == ["wrote out/predictions.jsonl", "wrote out/annotated/two.png"]
    for face, row in zip(emotion.load(device="cpu").predict("two.png"), rows(), strict=True):
        assert row["box"] == pytest.approx([face.box.left, face.box.top, face.box.side, face.box.side], abs=0.05)
        assert row["probabilities"] == pytest.approx(face.probabilities, abs=1e-4)


def test_images_of_every_kind_show_the_same_face() -> None:
    face = scene((200, 100, 240))
    rotated = Image.fromarray(face).rotate(-90, expand=True)
    exif = rotated.getexif()
    exif[0x0112] = 8
    Path("kinds").mkdir()
    rotated.save("kinds/rotated.png", exif=exif)
    save("kinds/gray.bmp", face[..., 0])
    save("kinds/sixteen.png", face[..., 0].astype(np.uint16) * 257)
    save("kinds/alpha.png", np.dstack([face, np.full((480, 640), 255, np.uint8)]))
    Image.fromarray(face).convert("CMYK").save("kinds/cmyk.jpg", quality=95)
    Image.fromarray(face).resize((6400, 4800)).save("kinds/large.jpg", quality=95)
    assert run_predict("source=kinds", "annotate=false")[:2] == (6, 6)
    boxes = {row["source"]: np.array(row["box"]) for row in rows()}
    boxes["kinds/large.jpg"] *= 640 / 6400
    for box in boxes.values():
        assert box == pytest.approx(boxes["kinds/gray.bmp"], abs=12)


@pytest.mark.parametrize("suffix", ["tif", "gif", "jfif", "pgm", "bmp", "webp"])
def test_a_still_image_of_any_ending(suffix: str) -> None:
    save(f"one.{suffix}", scene((200, 100, 240))[..., 0])
    assert run_predict(f"source=one.{suffix}")[:2] == (1, 1)
    assert rows()[0]["frame"] is None
    (annotated,) = (OUT / "annotated").iterdir()
    assert annotated.name == ("one.pgm.png" if suffix == "pgm" else f"one.{suffix}")  # in colors


def test_unreadable_files_are_reported_and_the_others_processed(capsys: pytest.CaptureFixture[str]) -> None:
    save("photos/a.png", TWO)
    save("photos/c.png", scene())
    Path("photos/b.jpg").write_bytes(b"no image")
    Path("photos/d.mp4").write_bytes(b"no video")
    write_video(Path("photos/e.mp4"), moving_face(3))
    with pytest.raises(UserError, match="2 of 5 files cannot be read; the others were processed"):
        run_predict("source=photos")
    assert [row["source"] for row in rows()] == ["photos/a.png"] * 2 + ["photos/e.mp4"] * 3
    output, errors = capsys.readouterr()
    assert "photos/c.png: no face\n" in output
    assert "wrote out/annotated/e.mp4\n" in output
    unreadable = [line.split(" cannot be read")[0] for line in errors.splitlines()]
    assert unreadable == ["warning: photos/b.jpg", "warning: photos/d.mp4"]


def test_the_names_of_many_sources_may_be_long_together() -> None:
    names = [save(f"{letter * 200}.png", scene()).name for letter in "abc"]
    assert run_predict(f"source=[{','.join(names)}]", "annotate=false").sources == 3


def test_no_face_is_not_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    save("wall.png", scene())
    assert run_predict("source=wall.png") == PredictionSummary(1, 0, [OUT / "predictions.jsonl"])
    assert rows() == []
    output, errors = capsys.readouterr()
    assert "wall.png: no face\n" in output
    assert errors.startswith("No face was found. detector.threshold=0.2 also accepts less certain faces")
    run_predict("source=wall.png")
    assert "out has results of an earlier command; files of the same names are replaced." in capsys.readouterr().err


@pytest.mark.parametrize(("image_format", "size"), [("JPEG", (9000, 6000)), ("PNG", (6000, 4500))])
def test_boxes_are_in_pixels_of_a_large_file(image_format: str, size: tuple[int, int]) -> None:
    width, height = size
    expected = [width // 2, height // 3, height // 2]
    path = Path(f"large.{image_format.lower()}")
    path.write_bytes(encode_image(scene(tuple(expected), width=width, height=height), image_format))
    (face,) = emotion.load(device="cpu").predict(path)
    assert list(face.box[:3]) == pytest.approx(expected, abs=height / 12)
    run_predict(f"source={path}", "annotate=false")
    assert rows()[0]["box"] == pytest.approx([*face.box[:3], face.box.side], abs=0.1)


def test_cropped_faces_and_csv() -> None:
    for i, face in enumerate(FACES):
        save(f"faces/{i}.png", face)
    assert run_predict("source=faces", "detector=none", "format=csv")[:2] == (6, 6)
    table = list(csv.DictReader((OUT / "predictions.csv").read_text().splitlines()))
    assert {(row["left"], row["top"], row["width"], row["height"]) for row in table} == {("0.0", "0.0", "48.0", "48.0")}
    expected = [face.label for (face,) in emotion.load(detector="none", device="cpu").predict(list(FACES))]
    assert [row["label"] for row in table] == expected


def test_a_video(capsys: pytest.CaptureFixture[str]) -> None:
    write_video(Path("clip.avi"), moving_face(30), fps=10, codec="MJPG")
    written = [OUT / name for name in ("predictions.jsonl", "annotated/clip.avi.mp4", "timelines/clip.avi.png")]
    assert run_predict("source=clip.avi") == PredictionSummary(1, 1, written)
    table = rows()
    assert [row["frame"] for row in table] == list(range(30))
    assert [row["time"] for row in table] == pytest.approx([0.1 * i for i in range(30)], abs=0.002)
    assert {row["face"] for row in table} == {1}
    assert [row["box"][0] for row in table] == pytest.approx([10 + (180 // 29) * i for i in range(30)], abs=25)
    assert [frame.shape for frame in read_video(OUT / "annotated/clip.avi.mp4")] == [(480, 640, 3)] * 30
    with Image.open(OUT / "timelines/clip.avi.png") as timeline:
        assert timeline.width > 1000
    assert "clip.avi: 30 frames of 3.0s, 1 face: face 1 " in capsys.readouterr().out
    run_predict("source=clip.avi", "frame_stride=5", "max_seconds=2", "annotate=false", "smoothing=0")
    assert [row["frame"] for row in rows()] == [0, 5, 10, 15]


def test_smoothing_is_an_exponential_average() -> None:
    write_video(Path("clip.mp4"), [scene((60 + 2 * n, 50, 140), width=320, height=240) for n in range(8)], fps=10)
    probs = {}
    for seconds in (0, 1):
        run_predict("source=clip.mp4", f"smoothing={seconds}", "annotate=false")
        probs[seconds] = np.array([list(row["probabilities"].values()) for row in rows()])
    expected = probs[0][0]
    for i, unsmoothed in enumerate(probs[0]):
        expected = expected + (1 - np.exp(-0.1)) * (unsmoothed - expected) if i else unsmoothed
        assert probs[1][i] == pytest.approx(expected, abs=3e-4)


def test_a_truncated_video_is_processed_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    truncate(write_video(Path("clip.avi"), moving_face(20), codec="MJPG"))
    assert run_predict("source=clip.avi", "annotate=false").sources == 1
    last = rows()[-1]["frame"]
    assert 0 < last < 15
    assert capsys.readouterr().err.startswith(f"warning: clip.avi ends after {last + 1} of 20 announced frames")


def test_standard_output_receives_only_rows(capsys: pytest.CaptureFixture[str]) -> None:
    save("two.png", TWO)
    assert run_predict("source=[two.png]", "output=-", folder=None).written == []
    output, errors = capsys.readouterr()
    assert [json.loads(line)["face"] for line in output.splitlines()] == [1, 2]
    assert errors.splitlines() == [NETWORK]
    assert [path.name for path in Path.cwd().iterdir()] == ["two.png"]


def test_standard_input_as_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    with save("two.webp", TWO).open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert run_predict("source=-").written[1] == OUT / "annotated/standard_input.png"
    assert [row["source"] for row in rows()] == ["standard input"] * 2


def test_standard_input_as_a_video_of_mixed_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [*moving_face(12)[:3], scene((400, 200, 200))]
    Path("stream.mjpeg").write_bytes(b"".join(encode_image(image, "JPEG") for image in images))
    with Path("stream.mjpeg").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert run_predict("source=-", "fps=10")[:2] == (1, 2)
    assert [(row["frame"], row["time"]) for row in rows()] == [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3)]
    assert len(read_video(OUT / "annotated/standard_input.mp4")) == 4


@pytest.mark.parametrize("packed", [False, True])
def test_a_csv_file_without_labels(packed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["Usage,pixels", *(f"Test,{' '.join(map(str, face.ravel()))}" for face in FACES)]
    content = "\n".join(lines).encode()
    path = Path("test.csv.gz" if packed else "test.csv")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert run_predict(f"source={path}", "format=csv") == PredictionSummary(1, 6, [OUT / "predictions.csv"])
    table = list(csv.DictReader((OUT / "predictions.csv").read_text().splitlines()))
    assert [(row["source"], row["frame"]) for row in table] == [(str(path), str(i)) for i in range(6)]
    expected = emotion.load(detector="none").predict(FACES)
    assert [row["label"] for row in table] == [face.label for (face,) in expected]
    assert f"{path}: 6 faces: " in capsys.readouterr().out


def test_a_csv_file_without_pixels_is_reported() -> None:
    Path("words.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"words\.csv has the columns a, b; expected one named pixels"):
        run_predict("source=words.csv")


def test_addresses_of_an_image_a_video_and_nothing() -> None:
    two = save("web/two.png", TWO)
    write_video(Path("web/clip.avi"), moving_face(5), fps=10, codec="MJPG")
    Path("web/words.txt").write_text("no image")
    with zipfile.ZipFile("web/two.zip", "w") as archive:
        archive.writestr("two.jpg", encode_image(TWO, "JPEG"))
    two.with_suffix(".html").write_bytes(two.read_bytes())
    with serve_folder(Path("web")) as address:
        for name in ("two.png", "two.html"):  # whatever type the server states
            assert run_predict(f"source={address}/{name}")[:2] == (1, 2)
            assert rows()[0]["frame"] is None
            assert (OUT / f"annotated/{name}").with_suffix(".png").is_file()
        assert run_predict(f"source={address.upper()}/two.png")[:2] == (1, 2)
        with pytest.raises(UserError, match=r"/two\.zip provides neither an image nor a video"):
            run_predict(f"source={address}/two.zip")
        assert run_predict(f"source={address}/clip.avi")[:2] == (1, 1)
        assert [row["frame"] for row in rows()] == [0, 1, 2, 3, 4]
        assert [row["time"] for row in rows()] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=0.002)
        with pytest.raises(UserError, match=r"/words\.txt provides neither an image nor a video"):
            run_predict(f"source={address}/words.txt")
        with pytest.raises(UserError, match=r"/three\.png cannot be loaded .*404"):
            run_predict(f"source={address}/three.png")
    with pytest.raises(UserError, match=r"rtsp://127\.0\.0\.1:9/cam provides neither an image nor a video"):
        run_predict("source=rtsp://127.0.0.1:9/cam")


@pytest.mark.parametrize("name", ["my faces", "Lächeln", "100% sad"])
def test_an_address_may_have_spaces_and_other_letters(name: str) -> None:
    save(f"web/{name}.png", TWO)
    write_video(Path(f"web/{name}.avi"), moving_face(3), fps=10, codec="MJPG")
    with serve_folder(Path("web")) as address:
        for written in (name, quote(name)):
            assert run_predict(f"source='{address}/{written}.png?größe=a b'")[:2] == (1, 2)
            assert (OUT / f"annotated/{name}.png").is_file()
            assert run_predict(f"source='{address}/{written}.avi'").sources == 1
        assert rows()[0]["source"] == f"{address}/{written}.avi"
        with pytest.raises(UserError, match=re.escape(f"{address}/no {name}.png cannot be loaded")):
            run_predict(f"source='{address}/no {name}.png'")


def test_the_password_of_an_address_is_sent_and_never_shown(capsys: pytest.CaptureFixture[str]) -> None:
    save("web/two.png", TWO)
    Path("web/animated.gif").write_bytes(encode_animation(moving_face(20)[:4]))
    write_video(Path("web/clip.avi"), moving_face(3), fps=10, codec="MJPG")
    Path("web/words.txt").write_text("no image")
    Path("web/broken.png").write_bytes(encode_image(TWO)[:300])
    with serve_folder(Path("web"), login=True) as address:
        masked, address = (address.replace("//", f"//me:{password}@") for password in ("***", "p%40ss"))
        assert len(emotion.load().predict(f"{address}/two.png")) == 2
        for name in ("two.png", "animated.gif", "clip.avi"):
            run_predict(f"source={address}/{name}")
            assert rows()[0]["source"] == f"{masked}/{name}"
        for name in ("words.txt", "broken.png", "three.png"):
            with pytest.raises(UserError, match=re.escape(f"{masked}/{name}")) as refused:
                run_predict(f"source={address}/{name}")
            assert "p%40ss" not in str(refused.value)
        with pytest.raises(UserError, match=re.escape(f"{masked}/broken.png")):
            emotion.load().predict(f"{address}/broken.png")
    with pytest.raises(UserError, match=re.escape(f"[{masked}, a.png]: expected {masked} alone")):
        run_predict(f"source=['{address}',a.png]")
    with pytest.raises(UserError, match=re.escape("me:***@[::1/x is no address")):
        run_predict("source='http://me:p%40ss@[::1/x'")
    assert "p%40ss" not in "".join(capsys.readouterr())


def test_an_animated_gif_on_the_web_is_a_video() -> None:
    Path("web").mkdir()
    Path("web/animated.gif").write_bytes(encode_animation(moving_face(20)[:4]))
    Path("web/still.gif").write_bytes(encode_animation(moving_face(1)))
    with serve_folder(Path("web")) as address:
        assert run_predict(f"source={address}/animated.gif")[:2] == (1, 1)
        assert [(row["source"], row["frame"]) for row in rows()] == [(f"{address}/animated.gif", i) for i in range(4)]
        assert len(read_video(OUT / "annotated/animated.gif.mp4")) == 4
        run_predict(f"source={address}/still.gif", "annotate=false")
        assert [row["frame"] for row in rows()] == [None]


def test_the_command_reports_an_animation_of_which_it_reads_the_first_frame() -> None:
    Path("animated.webp").write_bytes(encode_animation(moving_face(4), "WEBP"))
    command = [sys.executable, "-m", "emotion.predict", "source=animated.webp", "output=-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    warning = "warning: animated.webp has several frames or pages; only the first one is used."
    assert done.stderr.splitlines() == [NETWORK, warning]


@pytest.mark.parametrize("media_type", ["application/octet-stream", None])
def test_an_image_of_an_unnamed_type_is_upright(media_type: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    rotated = Image.fromarray(scene((200, 100, 240))).rotate(-90, expand=True)
    exif = rotated.getexif()
    exif[0x0112] = 8
    Path("web").mkdir()
    rotated.save("web/rotated.jpg", exif=exif)
    write_video(Path("web/clip.avi"), moving_face(3), fps=10, codec="MJPG")
    for path in Path("web").iterdir():
        path.rename(path.with_suffix(""))
    if media_type is None:
        send = SimpleHTTPRequestHandler.send_header
        monkeypatch.setattr(
            SimpleHTTPRequestHandler,
            "send_header",
            lambda self, name, value: None if name == "Content-type" else send(self, name, value),
        )
    with serve_folder(Path("web")) as address:
        assert run_predict(f"source={address}/rotated", "annotate=false")[:2] == (1, 1)
        assert rows()[0]["frame"] is None
        assert rows()[0]["box"] == pytest.approx([200, 100, 240, 240], abs=40)
        run_predict(f"source={address}/clip", "annotate=false")
        assert [row["frame"] for row in rows()] == [0, 1, 2]


def test_faces_below_the_confidence_are_unclear(capsys: pytest.CaptureFixture[str]) -> None:
    save("two.png", TWO)
    run_predict("source=two.png", "min_confidence=0.99")
    assert {row["label"] for row in rows()} == {"unclear"}
    assert "two.png: 2 faces: unclear " in capsys.readouterr().out
    with pytest.raises(UserError, match="min_confidence=2"):
        run_predict("source=two.png", "min_confidence=2")


def test_weights_of_synthetic_faces_say_so(small_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    small_run(Path("run"), "trainer.max_epochs=1")
    save("two.png", TWO)
    run_predict("source=two.png", "checkpoint=run")
    assert "SYNTHETIC: V4Attention was trained on synthetic faces" in capsys.readouterr().err


def test_an_ensemble_of_own_runs(small_run: Callable[..., Path]) -> None:
    small_run(Path("run"), "trainer.max_epochs=1")
    save("two.png", TWO)
    run_predict("source=two.png", "checkpoint=[run,run]", "tta=flip")
    assert list(rows()[0]["probabilities"]) == ["happiness", "surprise", "sadness", "anger", "disgust", "fear"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
@pytest.mark.parametrize("table_format", ["jsonl", "csv"])
def test_a_file_name_that_is_no_unicode_leaves_a_readable_table(table_format: str) -> None:
    Path("photos").mkdir()
    os.rename(save("two.png", TWO), b"photos/b\xff.png")
    run_predict("source=photos", f"format={table_format}", "annotate=false")
    assert (OUT / f"predictions.{table_format}").read_text().count("photos/b?.png") == 2


def test_a_source_is_never_overwritten() -> None:
    path = save("out/annotated/two.png", TWO)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"two\.png is a source and would be overwritten; choose another output"):
        run_predict("source=out/annotated/two.png")
    assert path.read_bytes() == before
    table = Path("out/predictions.csv")
    table.write_text(f"pixels\n{' '.join(map(str, FACES[0].ravel()))}\n")
    with pytest.raises(UserError, match=r"predictions\.csv is a source and would be overwritten"):
        run_predict(f"source={table}", "format=csv")
    assert run_predict(f"source={table}", "format=jsonl").faces == 1
    other = save("a/annotated/two.png", TWO)
    with pytest.raises(UserError, match=r"annotated/two\.png is a source and would be overwritten"):
        run_predict(f"source=[{save('a/annotated/b/annotated/two.png', TWO)},{other}]", folder=Path("a/annotated/b"))


def test_the_output_may_be_the_folder_of_the_sources() -> None:
    save("photos/two.png", TWO)
    for _ in range(2):
        assert run_predict("source=photos", folder=Path("photos"))[:2] == (1, 2)


def test_a_closed_standard_input_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="source=- reads standard input, which is closed; expected a pipe or a file"):
        run_predict("source=-")


INVALID = {
    "source=nothing.png": r"nothing\.png does not exist; expected an image, a video, a folder",
    "source=x.png": r"x\.png cannot be read .*expected a complete image: PNG, JPEG, WEBP, BMP",
    "source=x.mp4": r"x\.mp4 cannot be read as a video",
    "source=63": "camera 63 provides no image",
    "source=[valid.png,'https://x.org/a.jpg']": r"source=.*: expected https://x\.org/a\.jpg alone, as an address",
    "source='http://[::1/x'": r"http://\[::1/x is no address \(Invalid IPv6 URL\); expected one like",
    "source='rtsp://[::1/x'": r"rtsp://\[::1/x is no address",
    "source=[0,1]": r"source=\[0, 1\]: expected 0 alone",
    "source=[valid.png,'-']": r"expected - alone",
    "source=[x.csv,valid.png]": r"expected x\.csv alone",
    "source={a:1}": "source=.*: expected an image, a video",
    "frame_stride=0": "frame_stride=0: expected an integer of at least 1",
    "smoothing=-1": "smoothing=-1: expected a number of at least 0",
    "max_seconds=0": "max_seconds=0: expected a number above 0, or null",
    "fps=nan": "fps=nan: expected a number above 0",
    "format=xml": "format=xml: expected jsonl, csv",
    "annotate=maybe": "annotate=maybe: expected true or false",
    "tta=many": "tta=many: expected one of none, flip, shifted, ten_crop",
    "checkpoint=nothing": "nothing does not exist; expected a run folder",
    "accelerator=abacus": "accelerator=abacus: expected auto, cpu, gpu",
}


@pytest.mark.parametrize("setting", INVALID)
def test_an_invalid_setting_is_reported_and_nothing_written(setting: str) -> None:
    for name in ("x.png", "x.mp4", "x.csv"):
        Path(name).write_bytes(b"not readable")
    save("valid.png", scene())
    with pytest.raises(UserError, match=INVALID[setting]):
        run_predict(*(() if "source" in setting else ("source=valid.png",)), setting)
    assert not OUT.exists()


def start(*arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "emotion.predict", "accelerator=cpu", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_rows_of_a_live_stream_are_piped_at_once() -> None:
    images = [encode_image(image, "JPEG", quality=90) for image in moving_face(6)]
    with start("source=-", "output=-", "fps=2") as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(images[0] + images[1])
        process.stdin.flush()
        table = [json.loads(process.stdout.readline()) for _ in range(2)]  # before more is sent
        for image in images[2:]:
            process.stdin.write(image)
            process.stdin.flush()
            table.append(json.loads(process.stdout.readline()))
        process.terminate()  # not SIGINT, which shells let background jobs ignore
        assert process.wait() == 143
        assert process.stdout.read() == b""
    assert [row["time"] for row in table] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert {row["face"] for row in table} == {1}
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 0)])
def test_a_signal_during_a_live_video_leaves_complete_files(signum: signal.Signals, status: int) -> None:
    with start("source=-", "output=out") as process:
        assert process.stdin
        process.stdin.write(b"".join(encode_image(image, "JPEG", quality=90) for image in moving_face(5)))
        process.stdin.flush()
        table = OUT / "predictions.jsonl"
        while process.poll() is None and not (table.is_file() and table.read_text().count("\n") == 5):
            time.sleep(0.05)
        process.send_signal(signum)
        assert process.wait() == status
        assert process.stdout
        assert "standard input: " in process.stdout.read().decode()
    assert [row["frame"] for row in rows()] == [0, 1, 2, 3, 4]
    assert len(read_video(OUT / "annotated/standard_input.mp4")) in (4, 5)  # the last may not be drawn yet
    expected = {"predictions.jsonl", "standard_input.mp4", "standard_input.png"}
    assert {path.name for path in OUT.rglob("*.*")} == expected
