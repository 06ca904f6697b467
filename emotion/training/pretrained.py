"""Trained weights for a network that is to be trained on: from the Hub, from a file, from a run of our own."""

import hashlib
import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from emotion.checkpoints import portable
from emotion.checkpoints.load import open_archive
from emotion.checkpoints.locate import SHIPPED, locate
from emotion.errors import REFUSALS, UserError
from emotion.io import bounded
from emotion.models.timm_backbone import TimmBackbone, create

PRETRAINED, RANDOM = "pretrained", "random"
WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What training loops put before every name."""

LEAST = 0.5  # of what stands before the head; with less, most of a network would begin from nothing

MOST_PLACES = 1 << 16  # of a transformer, to be laid out anew

State = dict[str, Tensor]


class Loaded(NamedTuple):
    """What became of a source's tensors and of the network's: names in the network's own order."""

    source: str
    digest: str | None  # SHA-256 of the file; None where timm fetched it
    loaded: list[str]
    resized: list[str]  # loaded after being brought to another shape, which stands behind the name
    skipped: list[str]  # the source's that have no place here, and why
    drawn: list[str]  # the network's that the source does not have

    def __str__(self) -> str:
        parts = [f"weights: {self.source}: {len(self.loaded)} tensors loaded"]
        for word, names in (("resized", self.resized), ("skipped", self.skipped), ("drawn anew", self.drawn)):
            parts += [f"  {len(names)} {word}: {_few(names)}"] if names else []
        return "\n".join(parts)


def load_into(net: nn.Module, source: str, input_size: int, in_channels: int, classes: tuple[str, ...]) -> Loaded:
    """Fill `net` from `source`: "pretrained", a run folder, or a .ckpt, .safetensors, .pth, .pt or .bin file.

    The last layer is taken over only from a run of the same classes.

    Raises:
        UserError: the source is not there, cannot be read, or has nothing for this network.
    """
    digest: str | None = None
    if source == PRETRAINED:
        given, name = _pretrained(net, in_channels, input_size)
    else:
        path = _file(source)
        try:
            given, name = _read(path, net, classes), source
        except REFUSALS as error:
            raise UserError(
                f"{path} holds no weights as this package or timm lays them out ({type(error).__name__}: {error}); "
                f"expected tensors by name, or the checkpoint of a run."
            ) from error
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    found = _fill(net, given, name, digest)
    features = {name: p.numel() for name, p in net.named_parameters() if name.startswith("features.")}
    fits = sum(features.get(name, 0) for name in found.loaded) / sum(features.values())
    if fits < LEAST:
        raise UserError(
            f"model.weights={source} fits {100 * fits:.0f} % of {type(net).__name__} before its head, expected at "
            f"least {100 * LEAST:.0f} %: it has {_few(list(given))}; the network has {_few(list(features))}. "
            f"Choose the model that they are of."
        )
    return found


def _pretrained(net: nn.Module, in_channels: int, input_size: int) -> tuple[State, str]:
    """The weights that timm publishes, under this network's names, and where they are from."""
    if not isinstance(net, TimmBackbone):
        raise UserError(
            f"model.weights={PRETRAINED}: nobody publishes weights of {type(net).__name__}; give a run folder or a "
            f"file, or model.weights={RANDOM} to start from nothing."
        )
    known = net.backbone.pretrained_cfg
    name = known.get("hf_hub_id") or f"{known['architecture']}.{known['tag']}"
    print(f"weights: {name}, from the Hugging Face Hub or its cache on this machine", flush=True)
    try:
        made = create(net.name, in_channels, input_size, pretrained=True)
    except (OSError, RuntimeError) as error:  # huggingface_hub's and urllib's errors are OSErrors
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"The weights {name} could not be had from the Hugging Face Hub ({reason}). Either connect this machine to "
            f"it, or give weights that lie here: model.weights=FILE, a .safetensors or .pth file of that backbone, or "
            f"model.weights=RUN, the folder of a run. model.weights={RANDOM} starts from nothing."
        ) from error
    return _under(made.state_dict()), name


def _file(source: str) -> Path:
    try:
        return locate(source)
    except UserError as error:
        raise UserError(
            f"model.weights={source}: {error} Or {PRETRAINED} (timm's, from the Hugging Face Hub), or {RANDOM}."
        ) from error


def _read(path: Path, net: nn.Module, classes: tuple[str, ...]) -> State:
    """A file's tensors under this network's names."""
    if path.suffix == SHIPPED:
        if portable.beside(path):
            return _of_run(portable.read(path), classes)
        try:
            return _of_others(net, load_file(path))
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} cannot be read as safetensors ({error}). Is it whole?") from error
    content = open_archive(path, "weights", "tensors by name, or the checkpoint of a run")
    if isinstance(content, Mapping) and isinstance(content.get("hyper_parameters"), Mapping):
        if "classes" in content["hyper_parameters"] and "state_dict" in content:
            return _of_run(content, classes)
    for name in ("state_dict_ema", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise UserError(f"{path} holds no tensors by name; expected a state dict or the checkpoint of a run.")
    return _of_others(net, tensors)


def _of_run(content: Mapping[str, Any], classes: tuple[str, ...]) -> State:
    """The network of one of our checkpoints; without its last layer where that tells other classes apart."""
    state = {name[4:]: value for name, value in content["state_dict"].items() if name.startswith("net.")}
    if tuple(content["hyper_parameters"]["classes"]) == classes:
        return state
    *_, last = (name for name, value in state.items() if name.startswith("head.") and value.ndim == 2)
    return {name: value for name, value in state.items() if name.rpartition(".")[0] != last.rpartition(".")[0]}


def _of_others(net: nn.Module, state: State) -> State:
    """Tensors named as another training left them, under this network's names."""
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): value for name, value in state.items()}
    if not isinstance(net, TimmBackbone) or any(name in net.state_dict() for name in state):
        return state
    if not net.backbone.state_dict().keys() <= state.keys():
        module = importlib.import_module(type(net.backbone).__module__)
        convert = getattr(module, "checkpoint_filter_fn", None)  # timm's own, from the layouts that authors published
        try:
            state = convert(state, net.backbone) if convert else state
        except (KeyError, RuntimeError, ValueError, AttributeError, IndexError, TypeError) as error:
            raise UserError(
                f"model.weights are not of {net.name} ({type(error).__name__}: {error}): they have "
                f"{_few(list(state))}. Choose the model that they are of."
            ) from error
    return _under(state)


def _under(state: Mapping[str, Tensor]) -> State:
    return {f"features.backbone.{name}": value for name, value in state.items()}


def _fill(net: nn.Module, given: State, source: str, digest: str | None) -> Loaded:
    own = net.state_dict()
    loaded, resized, skipped = {}, [], []
    for name, value in given.items():
        if name not in own:
            skipped.append(f"{name} (no such layer here)")
        elif value.shape == own[name].shape:
            loaded[name] = value
        elif (fitted := _fitted(net, name, value, own[name])) is not None:
            loaded[name] = fitted
            resized.append(f"{name} {_shape(value)} to {_shape(fitted)}")
        else:
            skipped.append(f"{name} ({_shape(value)}, here {_shape(own[name])})")
    bounded.check_finite(Path(source), loaded)
    net.load_state_dict(loaded, strict=False)
    return Loaded(source, digest, list(loaded), resized, skipped, [name for name in own if name not in loaded])


def _fitted(net: nn.Module, name: str, value: Tensor, own: Tensor) -> Tensor | None:
    """A first convolution made to see other channels, a transformer's places laid out anew, as timm does both.

    None where the shapes differ otherwise.
    """
    if name.endswith("pos_embed") and value.ndim == own.ndim == 3 and isinstance(net, TimmBackbone):
        grid = net.backbone.patch_embed.grid_size
        # prefix: of the class token and the like, which not every one has a place for
        prefix = own.shape[1] - grid[0] * grid[1]
        if (
            value.shape[1] > MOST_PLACES
            or value.shape[2] != own.shape[2]
            or math.isqrt(value.shape[1] - prefix) ** 2 != value.shape[1] - prefix
        ):
            return None
        places: Tensor = resample_abs_pos_embed(value.float(), grid, num_prefix_tokens=prefix)
        return places if places.shape == own.shape else None
    if value.ndim != 4 or value.shape[:1] != own.shape[:1] or value.shape[2:] != own.shape[2:]:
        return None
    channels, wanted = value.shape[1], own.shape[1]
    if channels == 3 and wanted == 1:
        return value.float().sum(1, keepdim=True)  # grey counts as equal red, green and blue
    return value.float().expand(-1, wanted, -1, -1) / wanted if channels == 1 else None


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "()"


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
