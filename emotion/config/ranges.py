"""The ranges of the numeric settings of a training run and of `bench`, which are checked before anything is built."""

import math
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from emotion.errors import UserError


class Range(NamedTuple):
    """The numbers from `low` to `high`; integers only if `low` is one.

    `above` excludes `low`, `below` excludes `high`.
    `is_pair`: the setting is itself a range, the lowest and the highest number.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False
    is_pair: bool = False

    def allows(self, value: object) -> bool:
        """Return whether a setting's value, a number or a list of numbers, is in the range."""
        values = value if isinstance(value, list) else [value]
        if not all(map(self._contains, values)):
            return False
        return not self.is_pair or (isinstance(value, list) and len(value) == 2 and value[0] <= value[1])

    def _contains(self, value: object) -> bool:
        types = int if isinstance(self.low, int) else int | float
        if not isinstance(value, types) or isinstance(value, bool) or not math.isfinite(value):
            return False
        is_end_excluded = (self.above and value == self.low) or (self.below and value == self.high)
        return self.low <= value <= self.high and not is_end_excluded

    def __str__(self) -> str:
        kind = "an integer" if isinstance(self.low, int) else "a number"
        kind = f"[LOW,HIGH], each {kind}" if self.is_pair else kind
        low, high = f"{self.low:g}", f"{self.high:.15g}"
        if math.isinf(self.high):
            return f"{kind} above {low}" if self.above else f"{kind} of at least {low}"
        if self.above:
            return f"{kind} above {low} and {'below' if self.below else 'at most'} {high}"
        return f"{kind} from {low} to {high}"


class Devices:
    """The values of Lightning's setting `devices`."""

    def allows(self, value: object) -> bool:
        """Return whether a setting's value says how many devices to use, or which ones."""
        if isinstance(value, list):
            return bool(value) and INDEX.allows(value)
        return value in ("auto", -1) or COUNT.allows(value)

    def __str__(self) -> str:
        return "auto, a number of devices, -1 for all of them, or a list of their indices"


COUNT, INDEX = Range(1), Range(0)
POSITIVE, NOT_NEGATIVE, SHARE = Range(0.0, above=True), Range(0.0), Range(0.0, 1.0)
RANGES: Mapping[str, Range | Devices] = {
    "seed": Range(0, 2**32 - 1),
    "batch_size": COUNT,
    "overfit": INDEX,
    "backbone_lr": NOT_NEGATIVE,
    "layer_decay": Range(0.0, 1.0, above=True),
    "patience": INDEX,
    "freeze_epochs": INDEX,
    "ema_decay": SHARE,
    "seconds": POSITIVE,
    "rounds": COUNT,
    "images": COUNT,
    "image_sides": Range(1, is_pair=True),
    "image_size": COUNT,
    "steps": COUNT,
    "faces": COUNT,
    "clients": COUNT,
    "rows": COUNT,
    "runs": COUNT,
    "preflight.faces": COUNT,
    "preflight.batch_size": COUNT,
    "preflight.steps": COUNT,
    "preflight.accuracy": SHARE,
    "preflight.loss": POSITIVE,
    "distillation.temperature": POSITIVE,
    "distillation.weight": SHARE,
    "data.*training": INDEX,
    "data.*public_test": INDEX,
    "data.*private_test": INDEX,
    "data.*variation": SHARE,
    "data.*size": COUNT,
    "split.fraction": Range(0.0, 1.0, above=True, below=True),
    "split.folds": Range(3),
    "split.fold": INDEX,
    "split.max_per_class": COUNT,
    "*.seed": INDEX,
    "sampler.power": SHARE,
    "input.size": COUNT,
    "input.std": POSITIVE,
    "input.zoom": Range(1.0),
    "augment.*.p": SHARE,
    "augment.*.degrees": Range(0.0, 180.0),
    "augment.*.translate": SHARE,
    "augment.*.zoom": SHARE,
    "augment.*.size": COUNT,
    "augment.*.scale": Range(0.0, 1.0, is_pair=True),
    "augment.*.ratio": Range(0.0, above=True, is_pair=True),
    "augment.*.brightness": SHARE,
    "augment.*.contrast": SHARE,
    "augment.*.saturation": SHARE,
    "augment.*.sigma": Range(0.0, above=True, is_pair=True),
    "augment.*.deviation": Range(0.0, is_pair=True),
    "augment.*.quality": Range(1.0, 100.0, is_pair=True),
    "augment.*.value": SHARE,
    "mixup.*alpha": POSITIVE,
    "mixup.p": SHARE,
    "model.widths": COUNT,
    "model.convs": COUNT,
    "model.blocks": COUNT,
    "model.stride": COUNT,
    "model.reduction": COUNT,
    "model.hidden": COUNT,
    "model.dropout": SHARE,
    "model.drop_path": SHARE,
    "model.slope": NOT_NEGATIVE,
    "loss.label_smoothing": SHARE,
    "loss.gamma": NOT_NEGATIVE,
    "loss.max_margin": NOT_NEGATIVE,
    "loss.scale": POSITIVE,
    "loss.tau": NOT_NEGATIVE,
    "optimizer.lr": NOT_NEGATIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.momentum": SHARE,
    "optimizer.ns_steps": COUNT,
    "optimizer.fallback_lr_scale": NOT_NEGATIVE,
    "scheduler.warmup": SHARE,
    "scheduler.warmup_epochs": INDEX,
    "scheduler.epochs": COUNT,
    "scheduler.floor": SHARE,
    "scheduler.patience": INDEX,
    "scheduler.factor": SHARE,
    "scheduler.min_lr": NOT_NEGATIVE,
    "scheduler.step_size": COUNT,
    "scheduler.gamma": NOT_NEGATIVE,
    "scheduler.T_0": COUNT,
    "scheduler.T_mult": COUNT,
    "trainer.max_epochs": COUNT,
    "trainer.devices": Devices(),
    "trainer.num_nodes": COUNT,
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.gradient_clip_val": NOT_NEGATIVE,
    "trainer.log_every_n_steps": INDEX,
    "trainer.num_sanity_val_steps": Range(-1),
    "callbacks.early_stopping.patience": INDEX,
    "callbacks.*.every_n_epochs": COUNT,
    "callbacks.*.epochs": INDEX,
    "callbacks.*.decay": SHARE,
    "callbacks.*.faces": COUNT,
    "callbacks.*.refresh_rate": INDEX,
    "callbacks.*.max_depth": Range(-1),
}
"""The range of a setting, or of each number of a list, by patterns of dotted names; null is always allowed."""
KNOWN = (
    *("emotion.", "torch.", "timm.", "lightning."),
    *("torchvision.transforms.v2.MixUp", "torchvision.transforms.v2.CutMix"),
)
"""Targets to whose settings the ranges apply; those of another library or of a plugin may have other ranges."""
LIBRARIES = ("kornia.", "torchvision.")
"""Libraries whose settings `p` are probabilities, too."""


def check_ranges(settings: Mapping[str, Any]) -> None:
    """Check the numbers among the settings of a run or of `bench`; interpolations are left.

    Raises:
        UserError: Naming the first one that is out of its range or NaN.
    """
    leaves = list(_leaves(settings))
    for pattern, expected in RANGES.items():
        for name, value, is_known in leaves:
            if is_known and fnmatchcase(name, pattern) and not expected.allows(value):
                raise UserError(f"{name}={value}: expected {expected}.")
    for name, value, is_known in leaves:
        if is_known and any(item != item for item in (value if isinstance(value, list) else [value])):
            raise UserError(f"{name}={value}: expected a number.")


def _leaves(node: object, name: str = "", is_known: bool = True) -> Iterator[tuple[str, Any, bool]]:
    """Yield the dotted name and value of each setting that is not null, and whether the ranges apply to it."""
    if isinstance(node, list) and any(isinstance(item, Mapping) for item in node):
        node = dict(enumerate(node))
    if isinstance(node, Mapping):
        target = str(node.get("_target_", KNOWN[0] if is_known else ""))
        for key, value in node.items():
            is_probability = key == "p" and target.startswith(LIBRARIES)
            yield from _leaves(value, f"{name}.{key}" if name else str(key), target.startswith(KNOWN) or is_probability)
    elif node is not None and not str(node).startswith("${"):
        yield name, node, is_known
