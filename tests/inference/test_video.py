import struct
from pathlib import Path

import numpy as np
import pytest

from emotion.errors import UserError
from emotion.inference.video import VideoWriter, open_camera, open_video
from tests.inference.videos import moving_face, read_video, truncate, write_video
from tests.promises.hostile_images import MADE

SHADES = [np.full((48, 64, 3), (10 * i, 0, 255 - 10 * i), np.uint8) for i in range(20)]
PATH = Path("x.mp4")


@pytest.mark.parametrize(("name", "codec"), [("x.mp4", "mp4v"), ("x.avi", "MJPG"), ("x.mkv", "mp4v")])
def test_frames_are_rgb_in_order_with_times(name: str, codec: str) -> None:
    stream = open_video(write_video(Path(name), SHADES, fps=10, codec=codec), Path(name))
    frames = list(stream.frames)
    assert (stream.source, stream.fps, stream.num_frames, stream.live) == (name, 10, 20, False)
    assert [frame.number for frame in frames] == list(range(20))
    assert [frame.time for frame in frames] == pytest.approx([0.1 * i for i in range(20)], abs=0.002)
    for frame, shade in zip(frames, SHADES, strict=True):
        assert np.abs(frame.image.mean((0, 1)) - shade[0, 0]).max() < 8
    assert (stream.num_read, stream.num_damaged) == (20, 0)


def test_frame_stride_and_max_seconds() -> None:
    stream = open_video(write_video(PATH, SHADES), PATH, frame_stride=8)
    assert [(frame.number, frame.time) for frame in stream.frames] == [(0, 0.0), (8, 0.8), (16, 1.6)]
    assert (stream.num_read, stream.fps) == (20, 10 / 8)
    stream = open_video(PATH, PATH)
    assert [frame.number for frame in stream.until(0.45)] == [0, 1, 2, 3, 4]
    assert stream.num_frames is None


def test_a_rotated_video_is_upright() -> None:
    path = write_video(PATH, moving_face(3, width=320, height=240))
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # of the rotation, here by 90 degrees
    assert struct.unpack_from(">i", content, matrix) == (1 << 16,)
    struct.pack_into(">9i", content, matrix, 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    assert {frame.image.shape for frame in open_video(path, path).frames} == {(320, 240, 3)}


def test_a_truncated_video_is_read_to_its_end() -> None:
    stream = open_video(truncate(write_video(Path("x.avi"), moving_face(20), codec="MJPG")), Path("x.avi"))
    assert 0 < len(list(stream.frames)) == stream.num_read < 15
    assert stream.num_frames == 20


@pytest.mark.parametrize("content", [b"", b"not a video", None])
def test_an_invalid_video_is_one_error(content: bytes | None, capfd: pytest.CaptureFixture[str]) -> None:
    write_video(PATH, SHADES)
    if content is None:
        truncate(PATH)  # the index of an .mp4 is at its end
    else:
        PATH.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.mp4 cannot be read as a video .*\.mp4.* Is it complete\?"):
        open_video(PATH, PATH)
    assert capfd.readouterr() == ("", "")


def test_a_missing_camera_is_one_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"camera 63 provides no image; expected the number of a connected camera"):
        open_camera(63)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["bomb.gif", "a bomb of jpeg as.mp4", "a playlist as.mp4"])
def test_malicious_files_are_rejected(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(MADE[name]())
    message = r"too large \(6000 x 6000 pixels\); expected at most 8.5|cannot be read as a v"
    with pytest.raises(UserError, match=message):
        open_video(tmp_path / name, Path(name))


def shade(level: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), (level, level, 0), np.uint8)


def levels() -> list[float]:
    return [float(frame[..., 0].mean()) for frame in read_video(PATH)]


def test_written_frames_are_read_back() -> None:
    with VideoWriter(PATH, 25) as writer:
        for i in range(30):
            writer.add(shade(8 * i), i / 25)
    assert writer.done
    assert levels() == pytest.approx([8 * i for i in range(30)], abs=6)
    assert np.abs(read_video(PATH)[20].mean((0, 1)) - [160, 160, 0]).max() < 8


def test_an_image_is_shown_until_the_time_of_the_next() -> None:
    with VideoWriter(PATH, 10) as writer:
        for level, time in ((0, 3.0), (100, 3.5), (150, 3.52), (200, 3.6)):
            writer.add(shade(level), time)
    assert levels() == pytest.approx([0, 0, 0, 0, 0, 150, 200], abs=6)


def test_a_video_is_complete_after_an_exception() -> None:
    def stop_early() -> None:
        with VideoWriter(PATH, 10) as writer:
            for i in range(5):
                assert not PATH.exists()
                writer.add(shade(50 * i), i / 10)
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        stop_early()
    assert len(read_video(PATH)) == 5
    assert [path.name for path in Path.cwd().iterdir()] == ["x.mp4"]


def test_without_images_no_file_is_written() -> None:
    with VideoWriter(PATH, 10) as writer:
        pass
    assert not writer.done
    assert not list(Path.cwd().iterdir())


def test_images_are_resized_to_the_first_of_even_size() -> None:
    with VideoWriter(PATH, 10) as writer:
        writer.add(shade(10, 49, 65), 0.0)
        writer.add(shade(200, 100, 30), 0.1)
    assert [frame.shape for frame in read_video(PATH)] == [(48, 64, 3)] * 2
    assert levels() == pytest.approx([10, 200], abs=6)


def test_a_path_that_cannot_be_written_is_one_error(capfd: pytest.CaptureFixture[str]) -> None:
    writer = VideoWriter(Path("nowhere/x.mp4"), 10)
    with writer, pytest.raises(UserError, match=r"nowhere/x\.mp4 cannot be written by OpenCV; annotate=false"):
        writer.add(shade(10), 0.0)
    assert capfd.readouterr().err == ""
