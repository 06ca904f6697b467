"""Write results: a table of predictions, annotated images and videos, timelines."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from emotion.data.readers.images import COLOR_SUFFIXES
from emotion.errors import UserError
from emotion.inference.annotate import annotate
from emotion.inference.frames import FrameResult, VideoStream
from emotion.inference.inputs import ANNOTATED, TABLE, TIMELINES
from emotion.inference.table import PredictionTable
from emotion.inference.timeline import Timeline
from emotion.inference.video import VideoWriter
from emotion.io.atomic import fit_name, make_folder
from emotion.io.picture import save_figure, save_image


class Outputs(ExitStack):
    """An output folder whose files are complete whenever the context is left, or standard output.

    Args:
        folder: Created with the first result; None writes the table to standard output and nothing else.
        table_format: jsonl or csv.
        draw: Whether to write annotated images, videos and timelines.
        classes: Class names in the order of the probabilities.
        sources: Files that are never overwritten.
    """

    def __init__(
        self,
        folder: Path | None,
        table_format: str,
        draw: bool,
        classes: Sequence[str],
        sources: Collection[Path] = (),
    ) -> None:
        super().__init__()
        self.folder, self.table_format, self.classes = folder, table_format, tuple(classes)
        self.drawing_folder = folder if draw else None
        self.sources = frozenset(map(_identity, sources))
        self.written: list[Path] = []  # so far
        self._paths: set[Path] = set()  # of results so far, except the table
        self._table: PredictionTable | None = None

    def add_rows(self, result: FrameResult) -> None:
        """Write the faces of a frame to the table."""
        if self._table is None:
            self._table = self._open_table()
        self._table.add(result)
        if self._table.path and self._table.path not in self.written:
            self.written.insert(0, self._table.path)

    def add_image(self, result: FrameResult) -> None:
        """Write the faces of an image to the table and, if there are any, an annotated copy."""
        self.add_rows(result)
        if self.drawing_folder and result.faces:
            name = result.frame.output_name
            suffix = name.suffix if name.suffix.lower() in COLOR_SUFFIXES else ".png"
            path = self._new_path(self.drawing_folder / ANNOTATED / name, suffix)
            save_image(Image.fromarray(annotate(result.frame.image, result.faces, extend=True)), path)
            self.written.append(path)

    @contextmanager
    def open_video(self, stream: VideoStream, title: str) -> Iterator["VideoOutput"]:
        """Open the outputs of a video; annotated video and timeline are completed even after an exception."""
        timeline = Timeline(self.classes)
        writer = self._video_writer(stream)
        try:
            with writer or nullcontext():
                yield VideoOutput(self, timeline, writer)
        finally:
            if writer and writer.done:
                self.written.append(writer.path)
            if self.drawing_folder and timeline.num_faces:
                path = self._new_path(self.drawing_folder / TIMELINES / stream.output_name, ".png")
                save_figure(timeline.plot(title), path)
                self.written.append(path)

    def _video_writer(self, stream: VideoStream) -> VideoWriter | None:
        if not self.drawing_folder:
            return None
        path = self._new_path(self.drawing_folder / ANNOTATED / stream.output_name, ".mp4")
        return VideoWriter(path, stream.fps)

    def _new_path(self, path: Path, suffix: str) -> Path:
        """Return the path that the result of a source gets, in a folder that exists.

        It ends in `suffix`, after a number if another source's result has the path.

        Raises:
            UserError: It is a source.
        """
        stem = path.stem if path.suffix == suffix else path.name
        endings = chain([suffix], (f"_{number}{suffix}" for number in count(2)))
        paths = (path.with_name(fit_name(stem, ending)) for ending in endings)
        new = next(one for one in paths if one not in self._paths)
        self._check_no_source(new)
        make_folder(new.parent)
        self._paths.add(new)
        return new

    def _check_no_source(self, path: Path) -> None:
        if path.exists() and _identity(path) in self.sources:
            raise UserError(f"{path} is a source and would be overwritten; choose another output=FOLDER.")

    def _open_table(self) -> PredictionTable:
        path = self.folder / f"{TABLE}.{self.table_format}" if self.folder else None
        if path:
            self._check_no_source(path)
            make_folder(path.parent)
        return PredictionTable(path, self.table_format, self.classes)


def _identity(path: Path) -> tuple[int, int]:
    """Return the same value for all names of a file."""
    status = path.stat()
    return status.st_dev, status.st_ino


class VideoOutput(NamedTuple):
    """The outputs of one video: the table, its timeline and, if requested, its annotated copy."""

    outputs: Outputs
    timeline: Timeline
    writer: VideoWriter | None

    def add(self, result: FrameResult) -> None:
        """Add the next frame."""
        self.outputs.add_rows(result)
        self.timeline.add(result)
        if self.writer:
            image = annotate(result.frame.image, result.faces, result.face_ids)
            self.writer.add(image, result.frame.time or 0.0)
