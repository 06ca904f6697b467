"""Find faces in images, videos or a camera and classify their expressions: python -m emotion.predict source=FILE."""

import math
import sys
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from emotion.cli import command_line, set_command_line, verb
from emotion.config.compose import as_list, is_int_at_least
from emotion.config.typed import ACCELERATORS, check_choices, typed
from emotion.errors import UserError, counted
from emotion.reporting.text import relative_path, wrapped
from emotion.runtime.announce import announce_torch

if TYPE_CHECKING:
    from emotion.inference.frames import Frame, VideoStream
    from emotion.inference.inputs import SourceFile

STANDARD_STREAM = "-"  # as source or output
NO_FACE = (
    "No face was found. detector.threshold=0.2 also accepts less certain faces (with detector=haar: "
    "detector.min_neighbors=2); for cropped faces use detector=none."
)


@dataclass(frozen=True)
class PredictConfig:
    """The settings of conf/predict.yaml."""

    data_dir: str
    cache_dir: str
    detector: dict[str, Any]
    source: Any
    checkpoint: Any
    tta: str | None
    frame_stride: int
    max_seconds: float | None
    smoothing: float
    fps: float
    min_confidence: float
    format: str
    annotate: bool
    accelerator: str
    output: str | None


class PredictionSummary(NamedTuple):
    """Numbers of images and videos and of faces in them, and the files written; a face counts once per video."""

    sources: int
    faces: int
    written: list[Path]


def predict(cfg: DictConfig, folder: Path | None) -> PredictionSummary:
    """Classify every face of the source, and write results to `folder`, or rows to standard output if it is None.

    Raises:
        UserError: A setting is invalid, or a file cannot be read; if one of several, after the others are processed.
    """
    config = typed(cfg, PredictConfig)
    _check(config)

    from rich.console import Console

    from emotion.config.instantiate import instantiate
    from emotion.inference.backends import SYNTHETIC_WARNING, load_backend
    from emotion.inference.detectors import FullImage
    from emotion.inference.frames import VideoStream
    from emotion.inference.inputs import TABLES
    from emotion.inference.outputs import Outputs
    from emotion.inference.pipeline import Pipeline
    from emotion.inference.predictor import Predictor
    from emotion.reporting.text import console as new_console

    source = _open_source(config, folder)
    backend = load_backend(config.checkpoint, config.tta, config.accelerator, announce_torch)
    detector = FullImage() if isinstance(source, Path) else instantiate(config.detector)
    predictor = Predictor(backend, detector, config.min_confidence)
    warnings, console = Console(stderr=True), new_console()
    console.quiet = folder is None

    def report(text: str, to: Console = console) -> None:
        to.print(text, markup=False, highlight=False, soft_wrap=True)

    network = f"{backend.name} ({', '.join(as_list(config.checkpoint))}): {', '.join(backend.classes)}"
    report(network, warnings if folder is None else console)
    if backend.is_synthetic:
        report(wrapped(SYNTHETIC_WARNING.format(name=backend.name)), warnings)
    files = [file.path for file in source] if isinstance(source, list) else [source] if isinstance(source, Path) else []
    outputs = Outputs(folder, config.format, config.annotate, backend.classes, sources=files)
    if folder and any((folder / table).exists() for table in TABLES):
        report(f"{folder} has results of an earlier command; files of the same names are replaced.", warnings)
    pipeline = Pipeline(predictor, outputs, console, warnings)
    try:
        with outputs:
            if isinstance(source, Path):
                pipeline.process_csv(source)
            elif isinstance(source, list):
                pipeline.process_files(source, config.frame_stride, config.smoothing, config.max_seconds)
            elif isinstance(source, VideoStream):
                with suppress(KeyboardInterrupt) if source.live else nullcontext():  # which ends a camera's stream
                    pipeline.process_video(source, config.smoothing, config.max_seconds)
            else:
                pipeline.process_images([source])
    finally:
        for path in outputs.written:
            report(f"wrote {relative_path(path)}")
    if pipeline.num_sources and not pipeline.num_faces:
        report(NO_FACE, warnings)
    if pipeline.num_unreadable:
        total = pipeline.num_sources + pipeline.num_unreadable
        raise UserError(
            f"{pipeline.num_unreadable} of {counted(total, 'file')} cannot be read; the others were processed."
        )
    return PredictionSummary(pipeline.num_sources, pipeline.num_faces, outputs.written)


def _open_source(config: PredictConfig, folder: Path | None) -> "list[SourceFile] | Path | Frame | VideoStream":
    """Return files, a CSV file, or an opened stream, whose first image is already read."""
    from emotion.inference.images import mask_password
    from emotion.inference.inputs import EXPECTED, find_files
    from emotion.inference.stdin import read_stdin
    from emotion.inference.video import open_address, open_camera

    source = config.source
    if isinstance(source, list) and len(source) == 1:
        source = source[0]
    if isinstance(source, list) and source:
        if alone := next((one for one in as_list(source) if _source_kind(one) != "files"), None):
            raise UserError(
                f"source=[{', '.join(map(mask_password, as_list(source)))}]: expected {mask_password(alone)} alone, as "
                f"an address, a camera, a CSV file or standard input is the only source; or several images, videos, "
                f"folders and patterns."
            )
        return find_files(as_list(source), folder, _print_skipped)
    match _source_kind(str(source)):
        case "stdin":
            if sys.stdin is None or sys.stdin.isatty():
                problem = "a terminal" if sys.stdin else "closed"
                raise UserError(
                    f"source=- reads standard input, which is {problem}; expected a pipe or a file: < FILE."
                )
            return read_stdin(open(sys.stdin.fileno(), "rb", closefd=False), config.fps, config.frame_stride)
        case "camera":
            return open_camera(int(source), config.frame_stride)
        case "table":
            return Path(source).expanduser()
        case "address":
            return open_address(str(source), config.frame_stride)
        case "files":
            if not isinstance(source, str) or not source:
                raise UserError(f"source={source}: expected {EXPECTED}.")
            return find_files([source], folder, _print_skipped)


def _print_skipped(text: str) -> None:
    print(text, file=sys.stderr)


def _source_kind(source: str) -> Literal["stdin", "camera", "table", "address", "files"]:
    """Return what a source is; only files can be several."""
    from emotion.data.packed import is_packed
    from emotion.inference.video import STREAMS

    path = Path(source).expanduser()
    if source == STANDARD_STREAM:
        return "stdin"
    if source.isdecimal() and not Path(source).exists():
        return "camera"
    if path.is_file() and (path.suffix.lower() == ".csv" or is_packed(path)):
        return "table"
    return "address" if source.lower().startswith(STREAMS) else "files"


def _check(config: PredictConfig) -> None:
    from emotion.inference.inputs import TABLE_FORMATS

    check_choices(config, format=TABLE_FORMATS, accelerator=ACCELERATORS)
    if not is_int_at_least(config.frame_stride, 1):
        raise UserError(f"frame_stride={config.frame_stride}: expected an integer of at least 1.")
    if not (math.isfinite(config.smoothing) and config.smoothing >= 0):
        raise UserError(f"smoothing={config.smoothing:g}: expected a number of at least 0.")
    for name in ("max_seconds", "fps"):
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(
                f"{name}={value:g}: expected a number above 0{', or null' if name == 'max_seconds' else ''}."
            )


@verb("predict", positional="source")
def main(cfg: DictConfig) -> None:
    """Predict and report."""
    folder = Path(str(cfg.output)) if cfg.output else relative_path(Path(HydraConfig.get().runtime.output_dir))
    predict(cfg, None if cfg.output == STANDARD_STREAM else folder)


if __name__ == "__main__":
    if f"output={STANDARD_STREAM}" in command_line():
        set_command_line([*command_line(), "hydra.run.dir=."])  # no output folder
    main()
