from io import BytesIO
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from emotion.errors import UserError
from emotion.inference import stdin
from emotion.inference.frames import Frame, VideoStream
from emotion.inference.stdin import read_stdin
from tests.images import encode_animation, encode_image, scene

LEVELS = (10, 90, 170, 250)
GRAYS = [np.full((40, 60, 3), level, np.uint8) for level in LEVELS]


class Pipe:
    """A stream that returns at most `chunk` bytes at a time."""

    def __init__(self, content: bytes, chunk: int = 1 << 16) -> None:
        self.content, self.chunk, self.position = content, chunk, 0

    def read1(self, size: int) -> bytes:
        data = self.content[self.position : self.position + min(size, self.chunk)]
        self.position += len(data)
        return data


def read_stream(content: bytes, chunk: int = 1 << 16, frame_stride: int = 1) -> VideoStream:
    stream = read_stdin(Pipe(content, chunk), 10, frame_stride)
    assert isinstance(stream, VideoStream)
    return stream


def levels(stream: VideoStream) -> list[int]:
    return [round(float(frame.image.mean())) for frame in stream.frames]


@pytest.mark.parametrize("chunk", [1, 3, 1000, 1 << 20])
def test_a_sequence_of_jpegs_is_a_video(chunk: int) -> None:
    stream = read_stream(b"".join(encode_image(gray, "JPEG") for gray in GRAYS), chunk)
    frames = list(stream.frames)
    assert tuple(round(float(frame.image.mean())) for frame in frames) == LEVELS
    assert [frame.number for frame in frames] == [0, 1, 2, 3]
    assert [frame.time for frame in frames] == [0.0, 0.1, 0.2, 0.3]


def test_frame_stride() -> None:
    stream = read_stream(b"".join(encode_image(gray, "JPEG") for gray in GRAYS), frame_stride=3)
    assert [(frame.number, frame.time) for frame in stream.frames] == [(0, 0.0), (3, 0.3)]
    assert (stream.num_read, stream.fps) == (4, pytest.approx(10 / 3))


@pytest.mark.parametrize("settings", [{"progressive": True}, {"restart_marker_rows": 1}, {"optimize": True}])
def test_every_kind_of_jpeg_is_split_correctly(settings: dict[str, object]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    encoded = encode_image(noise, "JPEG", quality=95, **settings)
    frames = [frame.image for frame in read_stream(3 * encoded).frames]
    np.testing.assert_array_equal(frames, [np.asarray(Image.open(BytesIO(encoded)))] * 3)


def test_thumbnails_and_bytes_between_images_are_skipped() -> None:
    thumbnail = encode_image(np.zeros((8, 8, 3), np.uint8), "JPEG")
    first, second = (encode_image(gray, "JPEG", comment=thumbnail) for gray in GRAYS[:2])
    header = b"--boundary\r\nContent-Type: image/jpeg\r\n\r\n"
    assert levels(read_stream(first + header + second + b"\r\n")) == [10, 90]


def test_damaged_and_truncated_frames_are_counted_and_skipped() -> None:
    valid = encode_image(scene((10, 10, 100), width=200, height=150), "JPEG")
    damaged = valid[:200] + b"\x00" * 20 + valid[220:]
    stream = read_stream(valid + damaged + valid + valid[: len(valid) // 2])
    assert len(list(stream.frames)) == stream.num_read - stream.num_damaged == 2
    assert stream.num_damaged >= 2


@pytest.mark.parametrize("where", ["header", "pixels", "thumbnail"])
@pytest.mark.parametrize("following", [1, 3])
def test_a_truncated_frame_does_not_swallow_the_next(where: str, following: int) -> None:
    thumbnail = encode_image(np.zeros((8, 8, 3), np.uint8), "JPEG")
    valid = encode_image(GRAYS[1], "JPEG", comment=thumbnail)
    table, scan = valid.rindex(b"\xff\xdb"), valid.rindex(b"\xff\xda")
    end = {"header": table + 20, "pixels": scan + 20, "thumbnail": valid.index(thumbnail) + 100}[where]
    stream = read_stream(valid + valid[:end] + following * valid, chunk=100)
    assert levels(stream) == [90] * (1 + following)
    assert stream.num_damaged == (2 if where == "thumbnail" else 1)  # which counts as a frame of its own


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "BMP", "JPEG"])
def test_a_single_image_of_any_format(image_format: str) -> None:
    frame = read_stdin(Pipe(encode_image(GRAYS[1], image_format), 7), 10)
    assert isinstance(frame, Frame)
    assert (frame.image.shape, frame.number, frame.time) == ((40, 60, 3), None, None)


@pytest.mark.parametrize("formats", ["PNG PNG", "WEBP PNG", "BMP JPEG", "PNG WEBP", "JPEG PNG", "JPEG JPEG PNG JPEG"])
def test_images_that_no_sequence_may_have_are_refused(formats: str) -> None:
    content = b"".join(encode_image(GRAYS[1], image_format) for image_format in formats.split())
    with pytest.raises(UserError, match="standard input has another image after the first; expected one image, or"):
        list(read_stream(content, 7).frames)


def test_an_animated_gif_is_a_video() -> None:
    stream = read_stream(encode_animation(GRAYS, fps=5), frame_stride=2)
    assert [(round(frame.image.mean()), frame.number, frame.time, frame.source) for frame in stream.frames] == [
        (10, 0, 0.0, "standard input"),
        (170, 2, pytest.approx(0.4), "standard input"),
    ]
    frame = read_stdin(Pipe(encode_animation(GRAYS[:1])), 10)
    assert isinstance(frame, Frame)
    assert frame.number is None


def test_a_multi_picture_photo_is_a_single_image() -> None:
    first, second = map(Image.fromarray, GRAYS[:2])
    frame = read_stdin(Pipe(encode_image(first, "MPO", save_all=True, append_images=[second])), 10)
    assert isinstance(frame, Frame)
    assert frame.image.mean() == pytest.approx(10, abs=1)


def test_frames_are_returned_as_they_arrive_and_no_more_is_held() -> None:
    jpegs = [encode_image(gray, "JPEG") for gray in GRAYS * 50]
    pipe = Pipe(b"".join(jpegs), 64)
    stream = read_stdin(pipe, 10)
    assert isinstance(stream, VideoStream)
    for i, _ in enumerate(islice(stream.frames, 150)):
        assert pipe.position <= sum(map(len, jpegs[: max(2, i + 1)])) + 64
    buffer = stdin._Buffer(Pipe(b"".join(jpegs), 100))
    for _ in buffer.jpegs():
        assert len(buffer.content) <= max(map(len, jpegs)) + 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "standard input is empty; expected an image or a sequence of JPEGs"),
        (b"\xff", "standard input is empty"),
        (b"\x00\x00\x00\x20ftypisom and so on", "standard input cannot be read .*expected a complete image"),
    ],
)
def test_invalid_input_is_one_error(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_stdin(Pipe(content), 10)


def test_images_without_end_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdin, "MAX_BYTES", 10_000)
    for start in (b"\x89PNG", encode_image(GRAYS[0], "JPEG")[:-2]):
        with pytest.raises(UserError, match="contains an image above 0 MiB"):
            read_stdin(Pipe(start + b"\x01" * 200_000), 10)
