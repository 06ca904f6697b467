"""Frames of video files and cameras, read as they are needed."""

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2
from cv2.typing import MatLike

from emotion.errors import UserError
from emotion.inference.frames import Frame, Reel
from emotion.inference.images import Picture
from emotion.inference.inputs import VIDEOS

RATE = 25.0  # frames a second of a video that does not say
RATES = 1.0, 240.0  # of one that may be believed
LARGEST, LARGEST_GIF = 36_000_000, 8_500_000  # pixels of a frame: 8K; of a GIF 4K, for a few bytes can be many
GIF = b"GIF8"
FORMATS = "mov,avi,flv,gif,mpegts,matroska,mpeg,mpegvideo,ogg,asf"  # of `VIDEOS`, as FFmpeg calls them
OPTIONS = f"protocol_whitelist;file|format_whitelist;{FORMATS}"  # a playlist's files and addresses are not opened


def video(path: Path, kept: Path, every: int = 1) -> Reel:
    """A video file's frames, turned as it says, as far as they can be read; times are its own.

    Args:
        path: of the file.
        kept: see `Frame`.
        every: hand out the first of so many.

    Raises:
        UserError: not even the first one can be read, or its frames are too large, which is seen before.
    """
    capture = _quiet(str(path))
    if capture.isOpened():
        _check_size(capture, path)
    if not capture.isOpened() or not capture.grab():
        raise UserError(f"{path} cannot be read as a video ({', '.join(sorted(VIDEOS))}). Is it whole?")
    rate = _rate(capture)
    length = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    reel = Reel(str(path), kept, iter(()), rate / every, round(length) if 0 < length < 1e9 else None)
    reel.frames = _frames(capture, reel, every, _of_the_file(capture, 1 / rate))
    return reel


def camera(index: int, every: int = 1) -> Reel:
    """What a camera sees, in seconds since its first picture.

    Raises:
        UserError: there is no such camera, or it gives no picture.
    """
    capture = _quiet(index)
    if not capture.isOpened() or not capture.grab():
        raise UserError(
            f"camera {index} gives no picture; expected the number of a camera that is connected, that you may read "
            f"and that no other program uses: source=0 is the first. {_cameras()}"
        )
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # where we are slower than it, see what is, not what was
    reel = Reel(f"camera {index}", Path(f"camera_{index}"), iter(()), _rate(capture) / every, live=True)
    reel.frames = _frames(capture, reel, every, _of_the_clock())
    return reel


def _frames(capture: cv2.VideoCapture, reel: Reel, every: int, times: Iterator[float]) -> Iterator[Frame]:
    """From the one on that is grabbed already."""
    try:
        more = True
        while more:
            moment = next(times)
            number, reel.read = reel.read, reel.read + 1
            if number % every == 0:
                whole, pixels = capture.retrieve()
                if whole:
                    picture = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
                    yield Frame(reel.source, reel.kept, picture, number, moment)  # type: ignore[arg-type]
                else:
                    reel.damaged += 1
            more = capture.grab()
    finally:
        capture.release()


def _of_the_file(capture: cv2.VideoCapture, step: float) -> Iterator[float]:
    """The time of the frame just grabbed; where that is no later than the one before, `step` after it."""
    last = -step
    while True:
        moment = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        last = moment if moment > last else last + step
        yield last


def _of_the_clock() -> Iterator[float]:
    began = time.monotonic()
    while True:
        yield time.monotonic() - began


def _check_size(capture: cv2.VideoCapture, path: Path) -> None:
    width, height = (round(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    with path.open("rb") as file:
        most = LARGEST_GIF if file.read(len(GIF)) == GIF else LARGEST
    if width * height > most:
        found, expected = f"{width} x {height} pixels", f"at most {most / 1e6:g} million"
        raise UserError(f"{path} is too large ({found}); expected {expected}. Make it smaller first.")


def _quiet(source: str | int) -> cv2.VideoCapture:
    """Opened, or not; what OpenCV and FFmpeg have to say of it is said by us."""
    silence()
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = OPTIONS
    return cv2.VideoCapture(source) if isinstance(source, int) else cv2.VideoCapture(source, cv2.CAP_FFMPEG)


def silence() -> None:
    """Keep OpenCV and FFmpeg from writing to standard error."""
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"  # AV_LOG_QUIET; FFmpeg is told when the first file is opened
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _rate(capture: cv2.VideoCapture) -> float:
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if math.isfinite(rate) and RATES[0] <= rate <= RATES[1] else RATE


def _cameras() -> str:
    """What there is, where the system lists them as files."""
    found = sorted(str(path) for path in Path("/dev").glob("video*")) if os.name == "posix" else []
    return f"Found: {', '.join(found)}." if found else "None was found."


SLOWEST, FASTEST = 1.0, 60.0  # frames a second


class Film:
    """MPEG-4 at an even rate: a picture stands until the next one's time; whole when it is left, for whatever reason.

    Args:
        path: of the .mp4; nothing is there before the end, and nothing at all where no picture was added.
        rate: pictures a second, about.

    Attributes:
        done: whether the file is there.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, min(max(rate, SLOWEST), FASTEST)
        self.partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
        self.writer: cv2.VideoWriter | None = None
        self.size = 0, 0
        self.began = 0.0
        self.written = 0
        self.standing: MatLike | None = None
        self.done = False

    def __enter__(self) -> "Film":
        return self

    def add(self, picture: Picture, time: float) -> None:
        """A picture (H, W, 3) to be seen from `time` on, in seconds; one of another size than the first is fitted.

        Raises:
            UserError: OpenCV cannot write it there.
        """
        if self.writer is None:
            self._open(picture, time)
        while self.written < round((time - self.began) * self.rate):
            self._write()
        frame = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        if frame.shape[1::-1] != self.size:
            frame = cv2.resize(frame, self.size, interpolation=cv2.INTER_AREA)
        self.standing = frame

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the file and puts it in its place.

        Raises:
            UserError: it cannot be read again, and nothing else was wrong.
        """
        if self.writer is None:
            return
        self._write()
        self.writer.release()
        check = cv2.VideoCapture(str(self.partial), cv2.CAP_FFMPEG)
        whole = check.grab()
        check.release()
        if whole:
            os.replace(self.partial, self.path)
            self.done = True
        else:
            self.partial.unlink(missing_ok=True)
            if error is None:
                raise UserError(f"{self.path} cannot be read after it was written; is there room on the disk?")

    def _open(self, picture: Picture, time: float) -> None:
        self.size, self.began = (picture.shape[1], picture.shape[0]), time
        silence()
        writer = cv2.VideoWriter(
            str(self.partial), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), self.rate, self.size
        )
        if not writer.isOpened():
            raise UserError(f"{self.path} cannot be written by OpenCV; annotate=false leaves it out.")
        self.writer = writer

    def _write(self) -> None:
        if self.writer is not None and self.standing is not None:
            self.writer.write(self.standing)
            self.written += 1
