"""Find checkpoint files by what the user types; imports nothing heavy, so that mistakes are reported at once."""

import mimetypes
import shlex
from collections.abc import Sequence
from pathlib import Path

from emotion.config.compose import as_list
from emotion.errors import UserError, listing
from emotion.io.folders import expand, walk

BEST_CHECKPOINT, LAST_CHECKPOINT = Path("checkpoints/best.ckpt"), Path("checkpoints/last.ckpt")
CHECKPOINTS = (BEST_CHECKPOINT, LAST_CHECKPOINT)
DEFAULT = "ferplus"
"""The weights of this package that every verb uses if no checkpoint is named (but `publish`, which uploads)."""
HUB, PORTABLE_SUFFIX, ONNX_SUFFIX = "hub:", ".safetensors", ".onnx"
ZOO = Path(__file__).parent.parent / "zoo"


def locate_all(sources: str | Path | Sequence[object]) -> list[str]:
    """Return the names in `checkpoint=RUN` or `checkpoint=[RUN,RUN]` after checking that each local one exists.

    A pattern is replaced by the folders that it matches, or else the files.

    Raises:
        UserError: There is no name, or a file is missing.
    """
    if not isinstance(sources, str | Path | Sequence):
        raise UserError(f"checkpoint={sources}: expected a run folder, a .ckpt file, or a list of them.")
    names = [str(sources)] if isinstance(sources, Path) else as_list(sources)
    if not names:
        raise UserError("checkpoint= is empty; expected checkpoint=RUN, or several: checkpoint=[RUN,RUN].")
    names = [match for name in names for match in expand(name)]
    for name in names:
        if not name.startswith(HUB):
            locate(name)
    return names


def announce_default(verb: str, sources: object) -> None:
    """Print that a verb uses the package's weights, and how to choose others."""
    if sources == DEFAULT:
        print(f"checkpoint={DEFAULT}: weights of this package; for those of a run: python -m emotion.{verb} RUN")


def locate(source: str | Path) -> Path:
    """Return the checkpoint file of a run folder (best, else last), a file, a Hub repository or a zoo name.

    The folder `checkpoints` of a run means the run.

    Raises:
        UserError: There is none.
    """
    if str(source).startswith(HUB):
        from emotion.checkpoints.hub import download

        return download(str(source).removeprefix(HUB))
    path = Path(source).expanduser()
    if path.is_dir():
        for name in (*CHECKPOINTS, *(Path(one.name) for one in CHECKPOINTS)):
            if (path / name).is_file():
                return path / name
        runs = sorted(str(one) for one in walk(path) if any((one / name).is_file() for name in CHECKPOINTS))
        found = f" Runs in it:{listing(runs, 5)}" if runs else ""
        raise UserError(
            f"{path} has no {BEST_CHECKPOINT}; expected the folder of a run that saved a checkpoint.{found}"
        )
    if path.is_file():
        if (mimetypes.guess_type(path)[0] or "").startswith(("image/", "video/")):
            raise UserError(
                f"{path} is an image or a video, not a checkpoint. To classify its faces: python -m emotion.predict "
                f"{shlex.quote(str(path))}; to explain an image: python -m emotion.explain "
                f"{shlex.quote(f'images={path}')}"
            )
        if path.suffix == ONNX_SUFFIX:
            raise UserError(
                f"{path} is an ONNX file, which only predict, demo and emotion.load take; expected the run, .ckpt or "
                f".safetensors file that it was exported from."
            )
        return path
    if weights := zoo().get(str(source)):
        return weights
    raise UserError(
        f"{path} does not exist; expected a run folder (outputs/NAME/TIME), a .ckpt or .safetensors file, "
        f"hub:OWNER/NAME, or weights of this package ({', '.join(zoo())})."
    )


def zoo(suffix: str = PORTABLE_SUFFIX) -> dict[str, Path]:
    """Return the trained weights in the package by name: as .safetensors, or the same as .onnx."""
    return {path.stem: path for path in sorted(ZOO.glob(f"*{suffix}"))}
