"""Where the checkpoint that a person names lies: known at once, before what opens it is imported."""

from collections.abc import Sequence
from pathlib import Path

from emotion.config.compose import listed
from emotion.errors import UserError

BEST_CHECKPOINT, LAST_CHECKPOINT = Path("checkpoints/best.ckpt"), Path("checkpoints/last.ckpt")
HUB, SHIPPED = "hub:", ".safetensors"
ZOO = Path(__file__).parent.parent / "zoo"


def locate_all(sources: str | Path | Sequence[object]) -> list[str]:
    """The checkpoints of `checkpoint=RUN` or `checkpoint=[RUN,RUN]`, all there, or on the Hub.

    Raises:
        UserError: none is named, or one is missing.
    """
    if not isinstance(sources, str | Path | Sequence):
        raise UserError(f"checkpoint={sources}: expected a run folder, a .ckpt file, or several of them.")
    found = [str(sources)] if isinstance(sources, Path) else listed(sources)
    if not found:
        raise UserError("checkpoint= names none; expected checkpoint=RUN, or several of them: checkpoint=[RUN,RUN].")
    for one in found:
        if not one.startswith(HUB):
            locate(one)
    return found


def locate(source: str | Path) -> Path:
    """The best checkpoint of a run folder, its last one where there is no best; the file itself; trained weights.

    Raises:
        UserError: there is none.
    """
    if str(source).startswith(HUB):
        from emotion.checkpoints.hub import fetched

        return fetched(str(source).removeprefix(HUB))
    path = Path(source)
    if path.is_dir():
        for name in (BEST_CHECKPOINT, LAST_CHECKPOINT):
            if (path / name).is_file():
                return path / name
        raise UserError(f"{path} holds no {BEST_CHECKPOINT}; expected the folder of a run that saved at least once.")
    if path.is_file():
        return path
    if found := zoo().get(str(source)):
        return found
    raise UserError(
        f"{path} is not there; give a run folder (outputs/NAME/TIME), a .ckpt or .safetensors file, hub:OWNER/NAME, or "
        f"the name of weights that come with the package ({', '.join(zoo())})."
    )


def zoo() -> dict[str, Path]:
    """The trained weights that come with the package, by name."""
    return {path.stem: path for path in sorted(ZOO.glob("*.safetensors"))}
