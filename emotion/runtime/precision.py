"""Choose between bfloat16 and float32 by measuring a network's own layers, once per machine.

On processors, bfloat16 convolutions of 2x2 (https://github.com/pytorch/pytorch/issues/163347) and of stride 3
(https://github.com/pytorch/pytorch/issues/169688) have been wrong, and others slow
(https://github.com/pytorch/pytorch/issues/183815), depending on the processor, the version of torch and the shape of
the layer. `precision_report` therefore compares each layer in both types and caches the result.
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
from typing import Any, NamedTuple, Protocol

import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from emotion.errors import UserError
from emotion.io.atomic import write_json
from emotion.io.bounded import read_json_object
from emotion.runtime import distributed, hardware
from emotion.runtime.announce import announce_if_slow

MAX_ERROR = 2e-2  # relative error of an output or gradient; the rounding of bfloat16 alone gives 2e-3 to 5e-3
MAX_SLOWDOWN, MIN_LOSS = 1.1, 2e-3  # bfloat16 may take this many times as long as float32, and this many seconds more
CPU_BATCH_SIZE = 16  # a processor needs no larger batch; an accelerator is measured with the whole batch
MAX_ROUNDS = 5  # a layer is timed again while bfloat16 seems slower; the shortest times count
CACHE = "precision"  # folder in the cache directory

TRACED_FUNCTIONS = {
    *(f"conv{transposed}{dimensions}d" for transposed in ("", "_transpose") for dimensions in (1, 2, 3)),
    *("linear", "matmul", "__matmul__", "bmm", "baddbmm", "einsum"),
    *("scaled_dot_product_attention", "batch_norm", "layer_norm", "group_norm"),
    *("avg_pool2d", "adaptive_avg_pool2d", "mean"),
}
"""Names of the functions of torch that multiply or sum."""


class Classifier(Protocol):
    """A network and the shape of the faces that it takes."""

    @property
    def net(self) -> nn.Module: ...  # noqa: D102

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""


class PrecisionReport(NamedTuple):
    """Comparison of a network's layers in bfloat16 and float32."""

    worst: str  # the layer with the largest error
    error: float  # its relative error
    slowest: str  # the layer that loses most time in bfloat16
    float32: float  # seconds of all layers in a training step; on a processor, of one thread
    bfloat16: float

    def objection(self) -> str | None:
        """Return the reason against bfloat16; None if there is none."""
        if self.error > MAX_ERROR:
            return f"the error of {self.worst} in bfloat16 is {self.error:.1%}, expected at most {MAX_ERROR:.0%}"
        if self.bfloat16 > MAX_SLOWDOWN * self.float32 + MIN_LOSS:
            times = f"{1e3 * self.bfloat16:.1f} ms in bfloat16, {1e3 * self.float32:.1f} ms in float32"
            return f"the layers of a step take {times}; {self.slowest} loses the most time"
        return None


class Layer(NamedTuple):
    """A call of a traced function in a training step."""

    name: str
    function: Callable[..., Tensor]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    gradient: Tensor  # of its output
    calls: int = 1  # with the same shapes in a step


class LayerComparison(NamedTuple):
    """A layer in bfloat16 compared with float32."""

    error: float  # the largest relative error of the output and the gradients
    float32: float  # seconds of a forward and backward pass
    bfloat16: float


def evaluation_precision(
    classifiers: Iterable[Classifier],
    choice: str,
    batch_size: int,
    accelerator: str,
    cache_dir: str | Path,
) -> str:
    """Return the precision for evaluating classifiers: `choice`, or for "auto" the best that all their layers allow."""
    best = hardware.native_precision(choice, accelerator)
    if choice != "auto" or best != "bf16-mixed":
        return str(best)
    reports = (
        precision_report(one.net, (batch_size, *one.input_shape), torch.channels_last, accelerator, cache_dir)
        for one in classifiers
    )
    return choose_precision(reports, "precision")


def choose_precision(reports: Iterable[PrecisionReport], setting: str) -> str:
    """Return "bf16-mixed", or "32-true" with a warning at the first report that objects; `setting` overrides that."""
    reason = next(filter(None, (report.objection() for report in reports)), None)
    if reason and distributed.is_rank_zero():
        message = f"warning: {reason}; using float32. {setting}=bf16-mixed overrides this."
        print(message, file=sys.stderr, flush=True)
    return "32-true" if reason else "bf16-mixed"


def precision_report(
    net: nn.Module, shape: Sequence[int], memory_format: torch.memory_format, accelerator: str, cache_dir: str | Path
) -> PrecisionReport:
    """Return the cached report of the network on this machine, or measure it.

    The processes of a run wait for each other, so that all use the first one's result if they share `cache_dir`. If
    nothing can be cached, the network is measured again. A network that will be compiled is measured uncompiled: it
    spends most of its time in the same functions. A batch has the shape (B, C, S, S).
    """
    device = hardware.torch_device(accelerator)
    if device.type == "cpu":
        hardware.keep_freed_memory()  # as in training; otherwise float32 would wait longer for its larger memory
        shape = (CPU_BATCH_SIZE, *shape[1:])
    key = f"{hardware.device_name(accelerator)}; torch {torch.__version__}; {tuple(shape)}; {memory_format}; {net}"
    folder = Path(cache_dir) / CACHE
    path = folder / f"{hashlib.md5(key.encode()).hexdigest()}.json"
    report = _cached(path)
    if report:
        return report
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            report = _cached(path)
            if report is None:
                with announce_if_slow("timing and checking the network's layers in bfloat16, once on this machine"):
                    report = compare_network(net, shape, memory_format, device)
            write_json(path, report._asdict())
    return report or compare_network(net, shape, memory_format, device)


def _cached(path: Path) -> PrecisionReport | None:
    try:
        return PrecisionReport(**read_json_object(path))
    except (OSError, UserError, TypeError):  # missing, damaged or of another version
        return None


def compare_network(
    net: nn.Module, shape: Sequence[int], memory_format: torch.memory_format, device: torch.device
) -> PrecisionReport:
    """Compare every layer of a training step of a copy of `net`, forward and backward.

    A processor computes on one thread and counts that thread's own time, so that other load does not matter.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []), hardware.single_thread():
        torch.manual_seed(0)
        net = copy.deepcopy(net).to(device).to(memory_format=memory_format).train().requires_grad_(True)
        faces = torch.randn(*shape).to(device).contiguous(memory_format=memory_format)
        results = [(layer, compare_layer(layer)) for layer in trace_layers(net, faces)]
    worst, comparison = max(results, key=lambda result: result[1].error)
    slowest, _ = max(results, key=lambda result: result[0].calls * (result[1].bfloat16 - result[1].float32))
    float32 = sum(layer.calls * result.float32 for layer, result in results)
    bfloat16 = sum(layer.calls * result.bfloat16 for layer, result in results)
    return PrecisionReport(worst.name, comparison.error, slowest.name, float32, bfloat16)


def trace_layers(net: nn.Module, faces: Tensor) -> list[Layer]:
    """Return the network's calls of `TRACED_FUNCTIONS` in bfloat16, one for each function and shape of arguments."""
    with _Tracer(net) as tracer, torch.autocast(faces.device.type, torch.bfloat16):
        net(faces)
    return [layer._replace(calls=tracer.calls[shapes]) for shapes, layer in tracer.layers.items()]


class _Tracer(TorchFunctionMode):
    """Records calls; a layer is named after the module that owns its weight."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.names = {id(weight): name.rpartition(".")[0] for name, weight in net.named_parameters()}
        self.layers: dict[object, Layer] = {}
        self.calls: Counter[object] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        function = getattr(func, "__name__", "")
        if function in TRACED_FUNCTIONS and output.requires_grad:
            inputs = [*args, *kwargs.values()]
            shapes = (function, *(_signature(value) for value in inputs))
            self.calls[shapes] += 1
            if shapes not in self.layers:
                modules = [self.names[id(value)] for value in inputs if id(value) in self.names]
                sizes = " and ".join("x".join(map(str, x.shape)) for x in inputs[:2] if isinstance(x, Tensor))
                name = " ".join(filter(None, [function.strip("_"), *modules[:1], f"({sizes})"]))
                self.layers[shapes] = Layer(name, func, args, kwargs, torch.randn_like(output))
        return output


def _signature(value: object) -> object:
    return (value.shape, value.stride(), value.dtype, value.requires_grad) if isinstance(value, Tensor) else repr(value)


def compare_layer(layer: Layer) -> LayerComparison:
    """Run a layer forward and backward in both types; each one's first pass, which initializes, is not timed."""
    float32, bfloat16 = forward_backward(layer, bf16=False), forward_backward(layer, bf16=True)
    error = max(relative_error(value, expected) for value, expected in zip(bfloat16(), float32(), strict=True))
    times = [math.inf, math.inf]
    for _ in range(MAX_ROUNDS):
        seconds = [_seconds(run, layer.gradient.device) for run in (float32, bfloat16)]
        times = [min(pair) for pair in zip(times, seconds, strict=True)]
        if times[1] <= times[0]:
            break
    return LayerComparison(error, *times)


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over the norm of `expected`; infinity for NaN."""
    difference = float((value.float() - expected).norm())
    if difference == 0:
        return 0.0
    error = difference / float(expected.norm()) if expected.any() else math.inf
    return math.inf if math.isnan(error) else error


def forward_backward(layer: Layer, *, bf16: bool) -> Callable[[], list[Tensor]]:
    """Return a function that runs the layer and returns its output and the gradients of its inputs and weights."""

    def leaf(value: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return (value if bf16 else value.float()).detach().requires_grad_(value.requires_grad)

    args, kwargs = [leaf(value) for value in layer.args], {key: leaf(value) for key, value in layer.kwargs.items()}
    leaves = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.requires_grad]
    gradient = layer.gradient if bf16 else layer.gradient.float()

    def run() -> list[Tensor]:
        with torch.autocast(gradient.device.type, torch.bfloat16, enabled=bf16):
            output = layer.function(*args, **kwargs)
        return [output.detach(), *torch.autograd.grad(output, leaves, gradient)]

    return run


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Return the time of this thread on a processor, or until an accelerator is done."""
    if device.type == "cpu":
        start = time.thread_time()
        run()
        return time.thread_time() - start
    torch.accelerator.synchronize()
    start = time.perf_counter()
    run()
    torch.accelerator.synchronize()
    return time.perf_counter() - start
