"""Whether a machine computes a network in bfloat16 as rightly as in float32, and no slower: looked at once, and kept.

On processors convolutions of 2x2 (https://github.com/pytorch/pytorch/issues/163347) and of stride 3
(https://github.com/pytorch/pytorch/issues/169688) have been wrong in bfloat16, and others slow
(https://github.com/pytorch/pytorch/issues/183815): a matter of the processor, of torch's version and of the layer's
shape, so that only the very layers of a network tell.
"""

import copy
import hashlib
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from filelock import FileLock
from torch import nn

from emotion import distributed, machine
from emotion.errors import UserError
from emotion.exporting.latency import one_thread
from emotion.passes import compare, layers
from emotion.seals import read_json, write_json

if TYPE_CHECKING:
    from emotion.classifier import EmotionClassifier

MOST_ERROR = 2e-2
"""Of a layer's output or gradient, as a share of float32's, by their norms; bfloat16's rounding makes 2 to 5e-3."""
SLOWER, BRIEF = 1.1, 2e-3
"""A network's layers may take so many times as long as in float32, and so many seconds more: less is a machine's noise,
or too short to matter."""
FACES = 16
"""Enough to look at on a processor, whatever the batch; an accelerator is busy with no fewer than all."""


class Verdict(NamedTuple):
    """What was found of a network's layers."""

    worst: str
    error: float
    slowest: str  # which loses the most time in bfloat16
    float32: float  # seconds of all layers in a step, there and back; a processor's of one thread
    bfloat16: float

    def complaint(self) -> str | None:
        """Why float32 is to be taken; None where bfloat16 will do."""
        if self.error > MOST_ERROR:
            return f"in bfloat16 {self.worst} is {self.error:.1%} off float32's, expected at most {MOST_ERROR:.0%}"
        if self.bfloat16 > SLOWER * self.float32 + BRIEF:
            times = f"{1e3 * self.bfloat16:.1f} ms in bfloat16, {1e3 * self.float32:.1f} ms in float32"
            return f"the layers of a step take {times}, and {self.slowest} loses the most"
        return None


def precision(found: Iterable[Verdict], setting: str) -> str:
    """bf16-mixed; where one of the verdicts complains 32-true, after one warning of all processes.

    Those after it are not asked for. `setting` is what a person insists with.
    """
    why = next(filter(None, (one.complaint() for one in found)), None)
    if why and distributed.is_first():
        said = f"warning: {why}; float32 is taken instead. {setting}=bf16-mixed insists."
        print(said, file=sys.stderr, flush=True)
    return "32-true" if why else "bf16-mixed"


def precision_of(
    trained: Iterable["EmotionClassifier"], choice: str, batch_size: int, accelerator: str, cache_dir: str | Path
) -> str:
    """The precision in which trained classifiers are asked: `choice`, or for auto what all their layers allow."""
    best = machine.precision(choice, accelerator)
    if choice != "auto" or best != "bf16-mixed":
        return str(best)
    asked = batch_size, torch.channels_last, accelerator, cache_dir
    return precision((verdict_of(one, *asked) for one in trained), "precision")


def verdict_of(
    classifier: "EmotionClassifier",
    batch_size: int,
    layout: torch.memory_format,
    accelerator: str,
    cache_dir: str | Path,
) -> Verdict:
    """`verdict` on a classifier's network, on faces as it takes them."""
    takes = classifier.preprocess
    faces = batch_size, takes.channels, takes.size, takes.size
    return verdict(classifier.net, faces, layout, accelerator, cache_dir)


def verdict(
    net: nn.Module, faces: Sequence[int], layout: torch.memory_format, accelerator: str, cache_dir: str | Path
) -> Verdict:
    """What `look` finds, or has found before of the same network on the same machine.

    Batches are of `faces` (B, C, S, S). A network that will be compiled is looked at as it is: most of its time passes
    in the same functions.

    A run's processes ask one after another, and all but the first read its answer, so that they agree wherever they
    share `cache_dir`. Where nothing can be kept it is looked for anew.
    """
    device = machine.device(accelerator)
    if device.type == "cpu":
        machine.keep_memory()  # as training will; without it float32 would wait longer for its larger memory
        faces = (FACES, *faces[1:])
    key = f"{machine.description(accelerator)}; torch {torch.__version__}; {tuple(faces)}; {layout}; {net}"
    place = Path(cache_dir) / "kernels"
    path = place / f"{hashlib.md5(key.encode()).hexdigest()}.json"
    found = _kept(path)
    if found:
        return found
    with suppress(OSError):
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / ".lock"):
            found = _kept(path) or look(net, faces, layout, device)
            write_json(path, found._asdict())
    return found or look(net, faces, layout, device)


def _kept(path: Path) -> Verdict | None:
    try:
        return Verdict(**read_json(path))
    except (OSError, UserError, TypeError):  # not there, damaged, or another version's
        return None


def look(net: nn.Module, faces: Sequence[int], layout: torch.memory_format, device: torch.device) -> Verdict:
    """Every layer of a training step of a copy of `net`, there and back, in bfloat16 held against float32.

    One that is slower does not matter while all of them together are not. A processor computes on one thread, whose own
    time is taken: what else the machine does would otherwise decide, and be kept.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []), one_thread():
        torch.manual_seed(0)
        copied = copy.deepcopy(net).to(device).to(memory_format=layout).train().requires_grad_(True)
        batch = torch.randn(*faces).to(device).contiguous(memory_format=layout)
        found = [(layer, compare(layer)) for layer in layers(copied, batch)]
    worst, most = max(found, key=lambda pair: pair[1].error)
    slowest, _ = max(found, key=lambda pair: pair[0].calls * (pair[1].bfloat16 - pair[1].float32))
    seconds = [sum(layer.calls * getattr(seen, kind) for layer, seen in found) for kind in ("float32", "bfloat16")]
    return Verdict(worst.name, most.error, slowest.name, *seconds)
