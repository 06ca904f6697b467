"""Read frames from video files and cameras, and write videos."""

import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import cv2
from cv2.typing import MatLike

from emotion.data.crop import RGBImage
from emotion.errors import UserError
from emotion.inference.frames import Frame, VideoStream
from emotion.inference.images import (
    download,
    is_address,
    is_animated_gif,
    is_image,
    mask_password,
    parse_address,
    read_image,
)
from emotion.inference.inputs import VIDEO_SUFFIXES
from emotion.io.atomic import temporary_path

DEFAULT_FPS = 25.0  # of a video without a plausible frame rate
PLAUSIBLE_FPS = 1.0, 240.0
OUTPUT_FPS = 1.0, 60.0
MAX_PIXELS, MAX_GIF_PIXELS = 36_000_000, 8_500_000  # of a frame: 8K; 4K in GIFs, which compress many into few bytes
GIF_HEADER = b"GIF8"
STREAMS = ("rtsp://", "rtsps://", "http://", "https://")
DEMUXERS = "mov,avi,flv,gif,mpegts,matroska,mpeg,mpegvideo,ogg,asf"  # FFmpeg's names for `VIDEO_SUFFIXES`
FILE_OPTIONS = f"protocol_whitelist;file|format_whitelist;{DEMUXERS}"  # no playlists, no network
PROTOCOLS = "http,https,rtsp,rtp,udp,tcp,tls,crypto"  # no files
STREAM_DEMUXERS = f"{DEMUXERS},hls,dash,rtsp,rtp,sdp,mpjpeg"
STREAM_OPTIONS = (
    f"protocol_whitelist;{PROTOCOLS}|format_whitelist;{STREAM_DEMUXERS}|"
    f"timeout;20000000|rtsp_transport;tcp"  # microseconds
)


def open_video(path: Path, output_name: Path, frame_stride: int = 1, name: str = "") -> VideoStream:
    """Open a video file and yield every Nth frame, upright and with the file's times.

    `name` is that of the video in messages and results; it defaults to the path.

    Raises:
        UserError: The first frame cannot be read or is too large.
    """
    name = name or str(path)
    capture = _open(str(path))
    if capture.isOpened():
        _check_size(capture, path, name)
    if not capture.isOpened() or not capture.grab():
        raise UserError(f"{name} cannot be read as a video ({', '.join(sorted(VIDEO_SUFFIXES))}). Is it complete?")
    fps = _fps(capture)
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    num_frames = round(count) if 0 < count < 1e9 else None
    stream = VideoStream(name, output_name, iter(()), fps / frame_stride, num_frames)
    stream.frames = _read_frames(capture, stream, frame_stride, _file_times(capture, 1 / fps))
    return stream


def open_gif(content: bytes, name: str, output_name: Path, frame_stride: int = 1) -> VideoStream:
    """Open the content of an animated GIF, as `open_video` does."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows keeps open files
        path = Path(folder, "animated.gif")
        path.write_bytes(content)
        return open_video(path, output_name, frame_stride, name)


def open_camera(index: int, frame_stride: int = 1) -> VideoStream:
    """Open a camera; times count from its first frame.

    Raises:
        UserError: The camera does not exist or provides no image.
    """
    capture = _open(index)
    if not capture.isOpened() or not capture.grab():
        devices = sorted(map(str, Path("/dev").glob("video*"))) if os.name == "posix" else []
        raise UserError(
            f"camera {index} provides no image; expected the number of a connected camera that you may read and that "
            f"no other program uses: source=0 is the first. Found: {', '.join(devices) or 'none'}."
        )
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # always the latest frame, even if processing is slower than the camera
    source, output_name = f"camera {index}", Path(f"camera_{index}")
    stream = VideoStream(source, output_name, iter(()), _fps(capture) / frame_stride, live=True)
    stream.frames = _read_frames(capture, stream, frame_stride, _clock_times())
    return stream


def open_address(address: str, frame_stride: int = 1) -> Frame | VideoStream:
    """Open an image, a video or a stream on the web, or the stream of a network camera: http(s) or rtsp.

    Raises:
        UserError: The address is malformed, or there is no server, no such file, or neither an image nor a video.
    """
    parts, name = parse_address(address), mask_password(address)
    output_name = Path(PurePosixPath(unquote(parts.path)).name or parts.hostname or "stream")
    if is_address(address) and is_image(address):
        content = download(address)
        if is_animated_gif(content):
            return open_gif(content, name, output_name, frame_stride)
        image = read_image(content, name)
        return Frame(name, output_name, image.pixels, scale=image.scale)
    capture = _open(parts.geturl(), STREAM_OPTIONS)
    if not capture.isOpened() or not capture.grab():
        raise UserError(f"{name} provides neither an image nor a video. Does it play in a browser or player?")
    is_file = output_name.suffix.lower() in VIDEO_SUFFIXES
    times = _file_times(capture, 1 / _fps(capture)) if is_file else _clock_times()
    stream = VideoStream(name, output_name, iter(()), _fps(capture) / frame_stride, live=not is_file)
    stream.frames = _read_frames(capture, stream, frame_stride, times)
    return stream


class VideoWriter:
    """Write an MPEG-4 file of constant frame rate, in which each image is shown until the next one's time.

    The .mp4 file appears when the context is left, also after an exception; without images there is none. `fps` is
    limited to `OUTPUT_FPS`.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, min(max(fps, OUTPUT_FPS[0]), OUTPUT_FPS[1])
        self.partial = temporary_path(path)
        self.writer: cv2.VideoWriter | None = None
        self.size = 0, 0
        self.start = 0.0
        self.num_written = 0
        self.current: MatLike | None = None
        self.done = False  # whether the file was written

    def __enter__(self) -> "VideoWriter":
        return self

    def add(self, image: RGBImage, time: float) -> None:
        """Show an image (H, W, 3) from `time` on, in seconds; it is resized to the first image's size.

        Raises:
            UserError: OpenCV cannot write the file.
        """
        if self.writer is None:
            self.size, self.start = (image.shape[1], image.shape[0]), time
            self._open()
        while self.num_written < round((time - self.start) * self.fps):
            self._write()
        frame = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if frame.shape[1::-1] != self.size:
            frame = cv2.resize(frame, self.size, interpolation=cv2.INTER_AREA)
        self.current = frame

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Finish the file.

        Raises:
            UserError: It cannot be read back, and no other exception is being raised.
        """
        if self.writer is None:
            return
        self._write()
        self.writer.release()
        check = _open(str(self.partial))
        readable = check.grab()
        check.release()
        if readable:
            os.replace(self.partial, self.path)
            self.done = True
        else:
            self.partial.unlink(missing_ok=True)
            if error is None:
                raise UserError(f"{self.path} cannot be read back after writing; is the disk full?")

    def _open(self) -> None:
        silence_opencv()
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(self.partial), cv2.CAP_FFMPEG, codec, self.fps, self.size)
        if not writer.isOpened():
            raise UserError(f"{self.path} cannot be written by OpenCV; annotate=false skips it.")
        self.writer = writer

    def _write(self) -> None:
        if self.writer is not None and self.current is not None:
            self.writer.write(self.current)
            self.num_written += 1


def silence_opencv() -> None:
    """Keep OpenCV and FFmpeg from writing to standard error; FFmpeg reads its level when the first file is opened."""
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"  # AV_LOG_QUIET
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _open(source: str | int, options: str = FILE_OPTIONS) -> cv2.VideoCapture:
    silence_opencv()
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = options
    try:
        return cv2.VideoCapture(source) if isinstance(source, int) else cv2.VideoCapture(source, cv2.CAP_FFMPEG)
    finally:
        del os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"]


def _read_frames(
    capture: cv2.VideoCapture, stream: VideoStream, frame_stride: int, times: Iterator[float]
) -> Iterator[Frame]:
    """Yield frames, beginning with the one already grabbed."""
    try:
        grabbed = True
        while grabbed:
            seconds = next(times)
            index, stream.num_read = stream.num_read, stream.num_read + 1
            if index % frame_stride == 0:
                decoded, pixels = capture.retrieve()
                if decoded:
                    image = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
                    yield Frame(stream.source, stream.output_name, image, index, seconds)  # type: ignore[arg-type]
                else:
                    stream.num_damaged += 1
            grabbed = capture.grab()
    finally:
        capture.release()


def _file_times(capture: cv2.VideoCapture, step: float) -> Iterator[float]:
    """Yield the time of the grabbed frame, or `step` after the previous one if the file's time does not increase."""
    last = -step
    while True:
        seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        last = seconds if seconds > last else last + step
        yield last


def _clock_times() -> Iterator[float]:
    start = time.monotonic()
    while True:
        yield time.monotonic() - start


def _check_size(capture: cv2.VideoCapture, path: Path, name: str) -> None:
    width, height = (round(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    with path.open("rb") as file:
        limit = MAX_GIF_PIXELS if file.read(len(GIF_HEADER)) == GIF_HEADER else MAX_PIXELS
    if width * height > limit:
        raise UserError(
            f"{name} is too large ({width} x {height} pixels); expected at most {limit / 1e6:g} million. Make it "
            f"smaller first."
        )


def _fps(capture: cv2.VideoCapture) -> float:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if math.isfinite(fps) and PLAUSIBLE_FPS[0] <= fps <= PLAUSIBLE_FPS[1] else DEFAULT_FPS
