"""A network's layers, one by one, there and back, in bfloat16 held against float32."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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
