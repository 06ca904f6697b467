"""Load the networks to explain, by names that tell them apart."""

from collections.abc import Sequence
from pathlib import Path

from emotion.checkpoints import ensemble
from emotion.checkpoints.ensemble import Ensemble
from emotion.checkpoints.load import check_classes
from emotion.errors import UserError
from emotion.records.run_record import checkpoint_title
from emotion.runtime.hardware import torch_device


def load_networks(
    checkpoint: str | Sequence[str], compare_with: str | Sequence[str] | None, accelerator: str
) -> dict[str, Ensemble]:
    """Load `checkpoint` and, unless it is empty, `compare_with` onto the device, by unique names.

    Raises:
        UserError: A checkpoint cannot be read, or both are the same or have different classes.
    """
    sources = [checkpoint, *([compare_with] if compare_with else [])]
    networks = [ensemble.load_ensemble(source).to(torch_device(accelerator)) for source in sources]
    for other in networks[1:]:
        first = networks[0].loaded[0].path
        advice = "compare_with= needs a network of the same classes."
        check_classes(other.loaded[0].path, other.classes, networks[0].classes, f"{first} on", advice)
    if len({tuple(one.paths) for one in networks}) < len(networks):
        raise UserError(f"compare_with={compare_with} is the checkpoint itself; expected another one.")
    return dict(zip(_names(networks), networks, strict=True))


def _names(networks: Sequence[Ensemble]) -> list[str]:
    """Return short names: those of the architectures, else of the runs, else of the first folders that differ."""
    parts = [[Path(path).parts for path in one.paths] for one in networks]
    choices = [[[one.name] for one in networks], [list(map(checkpoint_title, one.loaded)) for one in networks]]
    longest = max(len(path) for paths in parts for path in paths)
    choices += [[[path[-end:][0] for path in paths] for paths in parts] for end in range(1, longest + 1)]
    names = [[" + ".join(members) for members in choice] for choice in choices]
    paths = [" + ".join(one.paths) for one in networks]
    return next((choice for choice in names if len(set(choice)) == len(choice)), paths)
