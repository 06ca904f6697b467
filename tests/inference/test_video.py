import struct
from pathlib import Path

import numpy as np
import pytest

from emotion.errors import UserError
from emotion.inference.video import camera, video
from tests.inference.videos import cut, film, moving_face
from tests.promises.hostile_pictures import MADE

SHADES = [np.full((48, 64, 3), (10 * number, 0, 255 - 10 * number), np.uint8) for number in range(20)]


@pytest.mark.parametrize(("name", "codec"), [("x.mp4", "mp4v"), ("x.avi", "MJPG"), ("x.mkv", "mp4v")])
def test_frames_come_in_order_with_their_times_in_rgb(name: str, codec: str) -> None:
    reel = video(film(Path(name), SHADES, rate=10, codec=codec), Path(name))
    frames = list(reel.frames)
    assert (reel.source, reel.rate, reel.length, reel.live) == (name, 10, 20, False)
    assert [frame.number for frame in frames] == list(range(20))
    assert [frame.time for frame in frames] == pytest.approx([0.1 * number for number in range(20)], abs=0.002)
    for frame, shade in zip(frames, SHADES, strict=True):
        assert np.abs(frame.picture.mean((0, 1)) - shade[0, 0]).max() < 8
    assert (reel.read, reel.damaged) == (20, 0)


def test_of_so_many_frames_the_first_is_handed_out() -> None:
    reel = video(film(Path("x.mp4"), SHADES), Path("x.mp4"), every=8)
    assert [(frame.number, frame.time) for frame in reel.frames] == [(0, 0.0), (8, 0.8), (16, 1.6)]
    assert (reel.read, reel.rate) == (20, 10 / 8)


def test_its_first_seconds_are_enough_where_no_more_is_asked() -> None:
    reel = video(film(Path("x.mp4"), SHADES), Path("x.mp4"))
    assert [frame.number for frame in reel.until(0.45)] == [0, 1, 2, 3, 4]
    assert reel.length is None


def test_a_video_that_was_held_upright_stands_upright() -> None:
    path = film(Path("x.mp4"), moving_face(3, width=320, height=240))
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # to be turned by 90 degrees
    assert struct.unpack_from(">i", content, matrix) == (1 << 16,)
    struct.pack_into(">9i", content, matrix, 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    assert {frame.picture.shape for frame in video(path, path).frames} == {(320, 240, 3)}


def test_a_cut_video_is_read_as_far_as_it_goes() -> None:
    reel = video(cut(film(Path("x.avi"), moving_face(20), codec="MJPG")), Path("x.avi"))
    assert 0 < len(list(reel.frames)) == reel.read < 15
    assert reel.length == 20


@pytest.mark.parametrize("content", [b"", b"no video at all", None])
def test_what_is_no_video_is_one_message(content: bytes | None, capfd: pytest.CaptureFixture[str]) -> None:
    path = film(Path("x.mp4"), SHADES)
    if content is None:
        cut(path)  # what an .mp4 is read by stands at its end
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.mp4 cannot be read as a video .*\.mp4.* Is it whole\?"):
        video(path, path)
    assert capfd.readouterr() == ("", "")


def test_no_camera_is_one_message(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"camera 63 gives no picture; expected the number of a camera"):
        camera(63)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["bomb.gif", "a bomb of jpeg as.mp4", "a playlist as.mp4"])
def test_what_harms_under_a_video_s_name_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(MADE[name]())
    with pytest.raises(
        UserError, match=r"too large \(6000 x 6000 pixels\); expected at most 8.5|cannot be read as a v"
    ):
        video(tmp_path / name, Path(name))
