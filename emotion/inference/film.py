"""A video file of pictures as they come."""

import os
from pathlib import Path
from types import TracebackType

import cv2
from cv2.typing import MatLike

from emotion.errors import UserError
from emotion.inference.pictures import Picture
from emotion.inference.videos import silence

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
