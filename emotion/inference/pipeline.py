"""Process images and videos one after another: predict, write, report; an unreadable one does not stop the others."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from emotion.data.readers.fer2013 import read_faces
from emotion.errors import UserError, counted, shortened
from emotion.inference.frames import BATCH_SIZE, Frame, FrameResult, VideoStream, process_frames
from emotion.inference.images import read_image
from emotion.inference.inputs import SourceFile
from emotion.inference.outputs import Outputs
from emotion.inference.predictor import Predictor
from emotion.inference.table import replace_surrogates
from emotion.inference.timeline import FaceHistory, Timeline
from emotion.inference.tracking import Tracker
from emotion.inference.video import open_video
from emotion.reporting.text import format_duration

CSV_BATCH_SIZE = 64
MAX_REPORTED = 6  # faces per image or video
MAX_NAME = 40  # characters of a file and of a network in the title of a plot
TRUNCATED = 0.98  # fraction of the announced frames below which a video is truncated; some only estimate the number


class Pipeline:
    """Predict, write to `outputs`, report a line per image or video to `console`, and problems to `warnings`."""

    def __init__(self, predictor: Predictor, outputs: Outputs, console: Console, warnings: Console) -> None:
        self.predictor, self.outputs, self.console, self.warnings = predictor, outputs, console, warnings
        self.num_sources = self.num_unreadable = 0  # images and videos so far
        self.num_faces = 0  # so far; a face counts once per video

    def process_files(
        self, files: list[SourceFile], frame_stride: int, smoothing: float, max_seconds: float | None
    ) -> None:
        """Process files in order; of a video every Nth frame (`frame_stride`), up to `max_seconds`.

        Raises:
            UserError: The only file cannot be read.
        """
        single = len(files) == 1
        for is_video, group in groupby(files, key=lambda file: file.is_video):
            if not is_video:
                self.process_images(self._read_images(group, single))
                continue
            for file in group:
                try:
                    stream = open_video(file.path, file.output_name, frame_stride)
                except UserError as error:
                    self._skip(error, single)
                else:
                    self.process_video(stream, smoothing, max_seconds)

    def process_images(self, frames: Iterable[Frame]) -> None:
        """Process independent images."""
        for result in process_frames(frames, self.predictor, None):
            self.outputs.add_image(result)
            self.num_sources += 1
            self.num_faces += len(result.faces)
            self._report(f"{result.frame.source}: {_describe_image(result)}")

    def process_csv(self, path: Path) -> None:
        """Process a CSV file with a column of pixels, as FER2013's: each row is a face, and its `frame` the row."""
        faces = (face for chunk in read_faces(path) for face in chunk)
        images = (np.repeat(face[..., None], 3, axis=2) for face in faces)
        frames = (Frame(str(path), Path(path.name), image, number) for number, image in enumerate(images))
        counts: Counter[str] = Counter()
        for result in process_frames(frames, self.predictor, None, CSV_BATCH_SIZE):
            self.outputs.add_rows(result)
            counts.update(face.label for face in result.faces)
        self.num_sources += 1
        self.num_faces += counts.total()
        shares = ", ".join(f"{count:,} {label}" for label, count in counts.most_common())
        self._report(f"{path}: {counted(counts.total(), 'face')}: {shares}")

    def process_video(self, stream: VideoStream, smoothing: float, max_seconds: float | None) -> None:
        """Process a video; faces are tracked and their probabilities smoothed."""
        tracker = Tracker(smoothing)
        name = replace_surrogates(stream.source)
        title = ": ".join(shortened(part, MAX_NAME) for part in (Path(name).name, self.predictor.backend.name))
        timeline = None
        if not self.console.is_terminal:
            self._report(f"reading {name} ...")
        try:
            with (
                self.outputs.open_video(stream, title) as output,
                self._progress(stream) as progress,
            ):
                timeline = output.timeline
                bar = progress.add_task("", total=None if max_seconds else stream.num_frames, source=name)
                batch_size = 1 if stream.live else BATCH_SIZE
                for result in process_frames(stream.until(max_seconds), self.predictor, tracker, batch_size):
                    output.add(result)
                    progress.update(bar, completed=stream.num_read, description=_labels(result, 3))
        finally:  # also after an exception, for the frames until then
            if timeline and timeline.num_frames:
                self.num_sources += 1
                self.num_faces += timeline.num_faces
                self._report(f"{stream.source}: {_describe_video(timeline, stream)}")
        if stream.num_frames and stream.num_read < TRUNCATED * stream.num_frames - 1:
            self._warn(
                f"{stream.source} ends after {stream.num_read} of {stream.num_frames} announced frames; the results "
                f"cover only these."
            )
        if stream.num_damaged:
            self._warn(f"{stream.source}: skipped {stream.num_damaged} of {stream.num_read} frames, which are damaged.")

    def _read_images(self, files: Iterable[SourceFile], single: bool) -> Iterator[Frame]:
        for file in files:
            try:
                image = read_image(file.path, replace_surrogates(str(file.path)))
            except UserError as error:
                self._skip(error, single)
            else:
                yield Frame(str(file.path), file.output_name, image.pixels, scale=image.scale)

    def _skip(self, error: UserError, single: bool) -> None:
        if single:
            raise error
        self.num_unreadable += 1
        self._warn(str(error))

    def _report(self, text: str) -> None:
        self.console.print(replace_surrogates(text), markup=False, highlight=False, soft_wrap=True)

    def _warn(self, text: str) -> None:
        self.warnings.print(f"warning: {replace_surrogates(text)}", markup=False, highlight=False, soft_wrap=True)

    def _progress(self, stream: VideoStream) -> Progress:
        columns = [SpinnerColumn(), TextColumn("{task.fields[source]}", markup=False)]
        columns += [] if stream.num_frames is None else [BarColumn(20), TimeRemainingColumn(compact=True)]
        columns += [TextColumn("{task.completed} frames"), TextColumn("{task.description}", markup=False)]
        disable = self.console.quiet or not self.console.is_terminal
        return Progress(*columns, console=self.console, transient=True, disable=disable)


def _describe_image(result: FrameResult) -> str:
    """Return a description such as "2 faces: happy 93 %, sad 51 %"."""
    if not result.faces:
        return "no face"
    count = len(result.faces)
    return f"{counted(count, 'face')}: {_labels(result, MAX_REPORTED)}{_more(count)}"


def _describe_video(timeline: Timeline, stream: VideoStream) -> str:
    """Return "300 frames of 10s, 2 faces: face 1 happy 81 % for 9.8s, face 2 sad 55 % for 3.0s", for example."""
    length = f"{counted(timeline.num_frames, 'frame')} of {format_duration(timeline.end + 1 / stream.fps)}"
    if not timeline.num_faces:
        return f"{length}, no face"
    faces = [_describe_face(history, timeline, stream) for history in timeline.longest(MAX_REPORTED)]
    return f"{length}, {counted(timeline.num_faces, 'face')}: {', '.join(faces)}{_more(timeline.num_faces)}"


def _describe_face(history: FaceHistory, timeline: Timeline, stream: VideoStream) -> str:
    best = int(history.mean_probs.argmax())
    duration = format_duration(history.end - history.start + 1 / stream.fps)
    return f"face {history.number} {timeline.classes[best]} {100 * history.mean_probs[best]:.0f} % for {duration}"


def _labels(result: FrameResult, count: int) -> str:
    return ", ".join(face.caption for face in result.faces[:count])


def _more(count: int) -> str:
    return f", and {count - MAX_REPORTED} more" if count > MAX_REPORTED else ""
