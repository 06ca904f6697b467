from io import BytesIO
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from emotion.errors import UserError
from emotion.inference import stdin
from emotion.inference.frames import Frame, Reel
from emotion.inference.stdin import piped
from tests.pictures import packed, scene


class Trickle:
    """Gives what it has in small pieces, as a slow pipe does, and knows how much was asked of it."""

    def __init__(self, content: bytes, piece: int) -> None:
        self.content, self.piece, self.given = content, piece, 0

    def read1(self, size: int) -> bytes:
        found = self.content[self.given : self.given + min(size, self.piece)]
        self.given += len(found)
        return found


GREYS = [np.full((40, 60, 3), level, np.uint8) for level in (10, 90, 170, 250)]


def levels(reel: object) -> list[int]:
    assert isinstance(reel, Reel)
    return [round(float(frame.picture.mean())) for frame in reel.frames]


@pytest.mark.parametrize("piece", [1, 3, 1000, 1 << 20])
def test_jpegs_one_after_another_are_its_frames(piece: int) -> None:
    reel = piped(Trickle(b"".join(packed(one, "JPEG") for one in GREYS), piece), rate=10)
    assert isinstance(reel, Reel)
    frames = list(reel.frames)
    assert [round(float(frame.picture.mean())) for frame in frames] == [10, 90, 170, 250]
    assert [frame.number for frame in frames] == [0, 1, 2, 3]
    assert [frame.time for frame in frames] == [0.0, 0.1, 0.2, 0.3]


def test_of_so_many_the_first_is_handed_out() -> None:
    reel = piped(flowing(b"".join(packed(one, "JPEG") for one in GREYS)), rate=10, every=3)
    assert isinstance(reel, Reel)
    assert [(frame.number, frame.time) for frame in reel.frames] == [(0, 0.0), (3, 0.3)]
    assert (reel.read, reel.rate) == (4, pytest.approx(10 / 3))


def flowing(content: bytes) -> Trickle:
    return Trickle(content, 1 << 16)


@pytest.mark.parametrize("settings", [{"progressive": True}, {"restart_marker_rows": 1}, {"optimize": True}])
def test_every_kind_of_jpeg_ends_where_it_ends(settings: dict[str, object]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    content = packed(noise, "JPEG", quality=95, **settings)
    reel = piped(flowing(content * 3), rate=10)
    assert isinstance(reel, Reel)
    assert [frame.picture.shape for frame in reel.frames] == [(64, 64, 3)] * 3


def test_a_picture_within_a_picture_is_no_frame() -> None:
    thumbnail = packed(np.zeros((8, 8, 3), np.uint8), "JPEG")
    content = b"".join(packed(grey, "JPEG", comment=thumbnail) for grey in GREYS)
    assert levels(piped(flowing(content), rate=10)) == [10, 90, 170, 250]


def test_what_lies_between_pictures_is_left_out() -> None:
    first, second = (packed(grey, "JPEG") for grey in GREYS[:2])
    parts = (first, b"--boundary\r\nContent-Type: image/jpeg\r\n\r\n", second, b"\r\n")
    assert levels(piped(flowing(b"".join(parts)), rate=10)) == [10, 90]


def test_a_damaged_frame_and_a_cut_one_are_counted_and_left_out() -> None:
    whole = packed(scene((10, 10, 100), width=200, height=150), "JPEG")
    damaged = whole[:200] + b"\x00" * 20 + whole[220:]
    reel = piped(flowing(whole + damaged + whole + whole[: len(whole) // 2]), rate=10)
    assert isinstance(reel, Reel)
    assert len(list(reel.frames)) == reel.read - reel.damaged == 2
    assert reel.damaged >= 2


def test_one_picture_is_a_picture_of_any_format() -> None:
    for kind in ("PNG", "WEBP", "BMP", "JPEG"):
        file = BytesIO()
        Image.fromarray(GREYS[1]).save(file, kind)
        found = piped(Trickle(file.getvalue(), 7), rate=10)
        assert isinstance(found, Frame)
        assert (found.picture.shape, found.number, found.time) == ((40, 60, 3), None, None)


def test_a_telephone_s_photograph_with_others_behind_it_is_one_picture() -> None:
    file = BytesIO()
    first, second = map(Image.fromarray, GREYS[:2])
    first.save(file, "MPO", save_all=True, append_images=[second])
    found = piped(flowing(file.getvalue()), rate=10)
    assert isinstance(found, Frame)
    assert found.picture.mean() == pytest.approx(10, abs=1)


def test_a_frame_is_there_before_the_next_but_one_is_read() -> None:
    each = [packed(grey, "JPEG") for grey in GREYS * 50]
    stream = Trickle(b"".join(each), 64)
    reel = piped(stream, rate=10)
    assert isinstance(reel, Reel)
    for number, _ in enumerate(islice(reel.frames, 150)):
        assert stream.given <= sum(map(len, each[: max(2, number + 1)])) + 64


def test_a_stream_never_holds_more_than_one_picture_s_bytes() -> None:
    stream = stdin._Stream(Trickle(b"".join(packed(one, "JPEG") for one in GREYS * 50), 100))
    largest = max(map(len, (packed(one, "JPEG") for one in GREYS)))
    for _ in stream.jpegs():
        assert len(stream.held) <= largest + 100


@pytest.mark.parametrize("content", [b"", b"\xff"])
def test_nothing_on_standard_input_says_what_to_give(content: bytes) -> None:
    with pytest.raises(UserError, match=r"standard input is empty; expected a picture, or JPEGs"):
        piped(flowing(content), rate=10)


def test_something_else_on_standard_input_is_one_message() -> None:
    with pytest.raises(UserError, match=r"standard input cannot be read .*expected a picture"):
        piped(flowing(b"\x00\x00\x00\x20ftypisom and so on"), rate=10)


def test_no_end_of_a_picture_is_waited_for_without_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdin, "MOST_BYTES", 10_000)
    for start in (b"\x89PNG", packed(GREYS[0], "JPEG")[:-2]):
        with pytest.raises(UserError, match="expected pictures of at most 0 MiB; found a larger one"):
            piped(flowing(start + b"\x01" * 200_000), rate=10)
