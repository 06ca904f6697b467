"""Whether a machine computes a network in bfloat16 as rightly as in float32, and no slower: looked at once, and kept.

On processors convolutions of 2x2 (https://github.com/pytorch/pytorch/issues/163347) and of stride 3
(https://github.com/pytorch/pytorch/issues/169688) have been wrong in bfloat16, and others slow
(https://github.com/pytorch/pytorch/issues/183815): a matter of the processor, of torch's version and of the layer's
shape, so that only the very layers of a network tell.
"""

import copy
import hashlib
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from emotion.errors import UserError
from emotion.io.digests import read_json, write_json
from emotion.runtime import distributed, hardware
from emotion.runtime.hardware import one_thread

if TYPE_CHECKING:
    from emotion.classifier import EmotionClassifier


ROUNDS = 5
"""A layer is timed again, and its shortest times count, as long as bfloat16 seems to be the slower one."""
COMPUTED = {
    *(f"conv{transposed}{sides}d" for transposed in ("", "_transpose") for sides in (1, 2, 3)),
    *("linear", "matmul", "__matmul__", "bmm", "baddbmm", "einsum"),
    *("scaled_dot_product_attention", "batch_norm", "layer_norm", "group_norm"),
    *("avg_pool2d", "adaptive_avg_pool2d", "mean"),
}
"""Functions of torch that multiply or sum, by whatever module or block they are called."""


class Layer(NamedTuple):
    """A call of such a function in a training step: what it is given, the gradient that comes back to what it makes."""

    name: str
    function: Callable[..., Tensor]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    gradient: Tensor
    calls: int = 1  # of the same shapes in a step


class Compared(NamedTuple):
    """A layer in bfloat16, held against float32: the largest share that differs, and the seconds of a call of each."""

    error: float
    float32: float
    bfloat16: float


def layers(net: nn.Module, faces: Tensor) -> list[Layer]:
    """What of `COMPUTED` the network calls in a pass in bfloat16, each function with the same shapes once."""
    with _Watch(net) as watch, torch.autocast(faces.device.type, torch.bfloat16):
        net(faces)
    return [layer._replace(calls=watch.calls[shapes]) for shapes, layer in watch.layers.items()]


class _Watch(TorchFunctionMode):
    """Notes the calls that go by; a layer bears the name of the module whose weight it is given."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.names = {id(weight): name.rpartition(".")[0] for name, weight in net.named_parameters()}
        self.layers: dict[object, Layer] = {}
        self.calls: Counter[object] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        kind = getattr(func, "__name__", "")
        if kind in COMPUTED and made.requires_grad:
            given = [*args, *kwargs.values()]
            shapes = (kind, *(_shape(value) for value in given))
            self.calls[shapes] += 1
            if shapes not in self.layers:
                named = [self.names[id(value)] for value in given if id(value) in self.names]
                sizes = " and ".join("x".join(map(str, one.shape)) for one in given[:2] if isinstance(one, Tensor))
                name = " ".join(filter(None, [kind.strip("_"), *named[:1], f"({sizes})"]))
                self.layers[shapes] = Layer(name, func, args, kwargs, torch.randn_like(made))
        return made


def _shape(value: object) -> object:
    return (value.shape, value.stride(), value.dtype, value.requires_grad) if isinstance(value, Tensor) else repr(value)


def compare(layer: Layer) -> Compared:
    """A layer there and back in both; the first pass of each, which prepares much, is not timed."""
    float32, bfloat16 = passing(layer, bf16=False), passing(layer, bf16=True)
    error = max(relative(found, expected) for found, expected in zip(bfloat16(), float32(), strict=True))
    times = [math.inf, math.inf]
    for _ in range(ROUNDS):
        taken = [_seconds(run, layer.gradient.device) for run in (float32, bfloat16)]
        times = [min(pair) for pair in zip(times, taken, strict=True)]
        if times[1] <= times[0]:
            break
    return Compared(error, *times)


def relative(found: Tensor, expected: Tensor) -> float:
    """The norm of their difference over that of what was expected; infinite where a number is none."""
    difference = float((found.float() - expected).norm())
    if difference == 0:
        return 0.0
    share = difference / float(expected.norm()) if expected.any() else math.inf
    return math.inf if math.isnan(share) else share


def passing(layer: Layer, *, bf16: bool) -> Callable[[], list[Tensor]]:
    """Calls the layer and gives what it makes and the gradients of all that it learns from or hands back."""

    def given(value: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return (value if bf16 else value.float()).detach().requires_grad_(value.requires_grad)

    args, kwargs = [given(value) for value in layer.args], {key: given(value) for key, value in layer.kwargs.items()}
    leaves = [leaf for leaf in (*args, *kwargs.values()) if isinstance(leaf, Tensor) and leaf.requires_grad]
    gradient = layer.gradient if bf16 else layer.gradient.float()

    def run() -> list[Tensor]:
        with torch.autocast(gradient.device.type, torch.bfloat16, enabled=bf16):
            made = layer.function(*args, **kwargs)
        return [made.detach(), *torch.autograd.grad(made, leaves, gradient)]

    return run


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Of this thread on a processor, however many others want it; until it is done on an accelerator."""
    if device.type == "cpu":
        started = time.thread_time()
        run()
        return time.thread_time() - started
    torch.accelerator.synchronize()
    started = time.perf_counter()
    run()
    torch.accelerator.synchronize()
    return time.perf_counter() - started


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


def choose_precision(found: Iterable[Verdict], setting: str) -> str:
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
    best = hardware.resolve_precision(choice, accelerator)
    if choice != "auto" or best != "bf16-mixed":
        return str(best)
    asked = batch_size, torch.channels_last, accelerator, cache_dir
    return choose_precision((verdict_of(one, *asked) for one in trained), "precision")


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
    device = hardware.device(accelerator)
    if device.type == "cpu":
        hardware.keep_memory()  # as training will; without it float32 would wait longer for its larger memory
        faces = (FACES, *faces[1:])
    key = f"{hardware.description(accelerator)}; torch {torch.__version__}; {tuple(faces)}; {layout}; {net}"
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
