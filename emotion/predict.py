"""Find the faces in pictures, videos or a camera's view and what they show: python -m emotion.predict source=FILE."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from emotion.cli import bare_arguments_are, verb
from emotion.config.compose import listed
from emotion.errors import UserError
from emotion.reporting.text import near

if TYPE_CHECKING:
    from emotion.inference.frames import Frame, Reel
    from emotion.inference.inputs import File

STANDARD = "-"  # input as source=-, output as output=-
NO_FACE = (
    "No face was found. Smaller ones are with detector.smallest=0.02, doubtful ones with detector.neighbours=2, turned "
    "ones with detector=yunet; for faces cropped already give detector=none."
)
Settings = dict[str, Any]


class Predicted(NamedTuple):
    """What came of it: pictures and videos judged, faces in them (over time in videos), files written."""

    sources: int
    faces: int
    written: list[Path]


def predict(cfg: DictConfig, folder: Path | None) -> Predicted:
    """Judge every face of the source; lines, pictures and videos go to `folder`, lines alone to standard output.

    Raises:
        UserError: something given is missing or wrong; of several files, once all the others are judged.
    """
    from rich.console import Console

    from emotion.config.instantiate import build
    from emotion.inference.backends import judge_of
    from emotion.inference.frames import Reel
    from emotion.inference.outputs import Outputs
    from emotion.inference.pipeline import Judging
    from emotion.inference.predictor import Predictor
    from emotion.reporting.text import console

    settings: Settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    _check(settings)
    source = _source(settings, folder)
    judge = judge_of(settings["checkpoint"], settings["tta"], settings["accelerator"])
    predictor = Predictor(judge, build(settings["detector"]))
    warnings, words = Console(stderr=True), console()
    words.quiet = folder is None
    about = f"{judge.name} ({', '.join(listed(settings['checkpoint']))}): {', '.join(judge.classes)}"
    (warnings if folder is None else words).print(about, markup=False, highlight=False, soft_wrap=True)
    over_time = settings["smoothing"], settings["seconds"]
    outputs = Outputs(folder, settings["format"], settings["annotate"], judge.classes)
    judging = Judging(predictor, outputs, words, warnings)
    try:
        with outputs:
            if isinstance(source, list):
                judging.files(source, settings["every"], *over_time)
            elif isinstance(source, Reel):
                judging.moving(source, *over_time)
            else:
                judging.stills([source])
    finally:
        for path in outputs.written:
            words.print(f"wrote {near(path)}", markup=False, highlight=False, soft_wrap=True)
    if not judging.faces and judging.sources:
        warnings.print(NO_FACE, markup=False, highlight=False, soft_wrap=True)
    if judging.unreadable:
        every = judging.sources + judging.unreadable
        raise UserError(f"{judging.unreadable} of {every} files cannot be read; the others are judged.")
    return Predicted(judging.sources, judging.faces, outputs.written)


def _source(settings: Settings, folder: Path | None) -> "list[File] | Frame | Reel":
    """The files that are named; or what comes from standard input or a camera, its first picture read already."""
    from emotion.inference import inputs, stdin, video

    named = settings["source"]
    if isinstance(named, list) and len(named) == 1:
        named = named[0]
    if named == STANDARD:
        if sys.stdin.isatty():
            raise UserError("source=- reads standard input, which is the keyboard; expected a pipe or a file: < FILE.")
        stream = open(sys.stdin.fileno(), "rb", closefd=False)
        return stdin.piped(stream, settings["fps"], settings["every"])
    if str(named).isdecimal() and not Path(str(named)).exists():
        return video.camera(int(named), settings["every"])
    if not isinstance(named, str | list) or not named:
        raise UserError(f"source={named}: expected {inputs.EXPECTED}.")
    return inputs.files(listed(named), folder)


def _check(settings: Settings) -> None:
    from emotion.inference.outputs import KINDS

    for name, choices in (("format", KINDS), ("accelerator", ("auto", "cpu", "gpu")), ("annotate", (True, False))):
        if settings[name] not in choices:
            raise UserError(f"{name}={settings[name]}: expected {', '.join(map(str, choices)).lower()}.")
    if settings["accelerator"] == "gpu":
        import torch

        if not torch.cuda.is_available():
            raise UserError("accelerator=gpu: there is none; expected auto or cpu.")
    if not isinstance(settings["every"], int) or settings["every"] < 1:
        raise UserError(f"every={settings['every']}: expected a whole number of 1 or more.")
    for name, kind in (("smoothing", "0 or more"), ("seconds", "more than 0, or null"), ("fps", "more than 0")):
        value = settings[name]
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not (number and (value > 0 or (name == "smoothing" and value == 0))) and (name, value) != ("seconds", None):
            raise UserError(f"{name}={value}: expected a number of {kind}.")
    if settings["output"] and Path(str(settings["output"])).is_file():
        raise UserError(f"output={settings['output']} is a file; expected a folder, or - for standard output.")


@verb("predict")
def main(cfg: DictConfig) -> None:
    """Predict and report."""
    own = near(Path(HydraConfig.get().runtime.output_dir))
    predict(cfg, None if cfg.output == STANDARD else Path(str(cfg.output)) if cfg.output else own)


if __name__ == "__main__":
    bare_arguments_are("source")
    if f"output={STANDARD}" in sys.argv:
        sys.argv.append("hydra.run.dir=.")  # nothing is written, no folder either
    main()
