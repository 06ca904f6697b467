"""Load pretrained weights into a network: from the Hugging Face Hub, a file or a run."""

import importlib
import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from emotion.checkpoints import portable
from emotion.checkpoints.hub import offline_if_unreachable
from emotion.checkpoints.load import read_torch_file
from emotion.checkpoints.locate import PORTABLE_SUFFIX, locate
from emotion.checkpoints.validate import check_finite
from emotion.errors import REFUSALS, UserError, first_few, first_line
from emotion.io.digests import file_digest
from emotion.models.timm_backbone import TimmBackbone, create
from emotion.training import efficientnet_lite

PRETRAINED, RANDOM = "pretrained", "random"
NET = "net."
"""Prefix of a network's tensors in the checkpoints of this package."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""Prefixes that training loops put before every name."""
MIN_SHARE = 0.5  # of the parameters before the head; with fewer, the weights probably belong to another network
MAX_POSITIONS = 1 << 16  # of a position embedding that is resampled

State = dict[str, Tensor]


class LoadedWeights(NamedTuple):
    """Names of the tensors that were loaded, and of those that were not."""

    source: str
    digest: str | None  # SHA-256 of the file; None if timm downloaded it
    loaded: list[str]
    resized: list[str]  # loaded with another shape; with both shapes
    skipped: list[str]  # only in the source, or of another shape; with the reason
    initialized: list[str]  # only in the network

    def __str__(self) -> str:
        lines = [f"weights: {self.source}: {len(self.loaded)} tensors loaded"]
        groups = {"resized": self.resized, "skipped": self.skipped, "newly initialized": self.initialized}
        lines += [f"  {len(names)} {group}: {first_few(names, 4)}" for group, names in groups.items() if names]
        return "\n".join(lines)

    def summary(self) -> dict[str, Any]:
        """Return the fields for the run record, `loaded` as a number."""
        return self._asdict() | {"loaded": len(self.loaded)}


def load_into(
    net: nn.Module, source: str, input_size: int, in_channels: int, classes: tuple[str, ...]
) -> LoadedWeights:
    """Load "pretrained" weights, or those of a run folder or a .ckpt, .safetensors, .pth, .pt or .bin file.

    Pretrained weights come from an installed package if there is one for the network, else from the Hugging Face Hub.
    The last layer is loaded only from a run with the same classes.

    Raises:
        UserError: The source is missing or cannot be read, or its weights belong to another network.
    """
    digest: str | None = None
    is_lite = isinstance(net, TimmBackbone) and net.name == efficientnet_lite.BACKBONE
    packaged = efficientnet_lite.weights_file() if is_lite else None
    if source == PRETRAINED and packaged:
        weights, name, digest = _read(packaged, net, classes), packaged.name, file_digest(packaged)
    elif source == PRETRAINED:
        weights, name = _download(net, in_channels, input_size)
    else:
        name = source
        try:
            path = locate(source)
        except UserError as error:
            raise UserError(
                f"model.weights={source}: {error} Or {PRETRAINED} (timm's, from the Hugging Face Hub), or {RANDOM}."
            ) from error
        try:
            weights = _read(path, net, classes)
        except REFUSALS as error:
            raise UserError(
                f"{path} does not have the layout of this package's or timm's weights ({type(error).__name__}: "
                f"{error}); expected tensors by name, or the checkpoint of a run."
            ) from error
        digest = file_digest(path)
    result = _load(net, weights, name, digest)
    features = {name: p.numel() for name, p in net.named_parameters() if name.startswith("features.")}
    share = sum(features.get(name, 0) for name in result.loaded) / sum(features.values())
    if share < MIN_SHARE:
        raise UserError(
            f"model.weights={source} fits {100 * share:.0f} % of {type(net).__name__} before its head, expected at "
            f"least {100 * MIN_SHARE:.0f} %: it has {first_few(list(weights), 4)}; the network has "
            f"{first_few(list(features), 4)}. Choose the model of these weights."
        )
    return result


def _download(net: nn.Module, in_channels: int, input_size: int) -> tuple[State, str]:
    """Return the weights that timm publishes, under this network's names, and their name on the Hub."""
    if not isinstance(net, TimmBackbone):
        raise UserError(
            f"model.weights={PRETRAINED}: there are no published weights of {type(net).__name__}; give a run folder or "
            f"a file, or model.weights={RANDOM} to train from scratch."
        )
    config = net.backbone.pretrained_cfg
    name = config.get("hf_hub_id") or f"{config['architecture']}.{config['tag']}"
    print(f"weights: {name}, from the Hugging Face Hub or its cache on this machine", flush=True)
    repo = config.get("hf_hub_id")
    try:
        with offline_if_unreachable(repo.partition("@")[0]) if repo else nullcontext():
            backbone = create(net.name, in_channels, input_size, pretrained=True)
    except (OSError, RuntimeError) as error:  # the errors of huggingface_hub and urllib are OSErrors
        raise UserError(
            f"The weights {name} cannot be downloaded from the Hugging Face Hub ({first_line(error)}). Connect this "
            f"machine to it, or give local weights: model.weights=FILE, a .safetensors or .pth file of that backbone, "
            f"or model.weights=RUN, a run folder. model.weights={RANDOM} trains from scratch."
            + (f" Or {efficientnet_lite.INSTALL}." if net.name == efficientnet_lite.BACKBONE else "")
        ) from error
    return _with_prefix(backbone.state_dict()), name


def _read(path: Path, net: nn.Module, classes: tuple[str, ...]) -> State:
    """Return a file's tensors under this network's names."""
    if path.suffix == PORTABLE_SUFFIX:
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} cannot be read as safetensors ({error}). Is it complete?") from error
        if not any(name.startswith(NET) for name in tensors):  # the Hub's weights also have a config.json next to them
            return _from_others(net, tensors)
        checkpoint = portable.read(path)
        return _from_run(checkpoint.state_dict, checkpoint.classes, classes)
    content = read_torch_file(path, "weights", "tensors by name, or the checkpoint of a run")
    if isinstance(content, Mapping) and "state_dict" in content:
        settings = content.get("hyper_parameters")
        if isinstance(settings, Mapping) and "classes" in settings:
            return _from_run(content["state_dict"], tuple(settings["classes"]), classes)
    for name in ("state_dict_ema", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise UserError(f"{path} holds no tensors by name; expected a state dict or the checkpoint of a run.")
    return _from_others(net, tensors)


def _from_run(state: State, own_classes: tuple[str, ...], classes: tuple[str, ...]) -> State:
    """Return the network of a checkpoint of this package, without its last layer if it has other classes."""
    state = {name.removeprefix(NET): value for name, value in state.items() if name.startswith(NET)}
    if own_classes == classes:
        return state
    *_, last = (name for name, value in state.items() if name.startswith("head.") and value.ndim == 2)
    return {name: value for name, value in state.items() if name.rpartition(".")[0] != last.rpartition(".")[0]}


def _from_others(net: nn.Module, state: State) -> State:
    """Return the tensors of another training loop under this network's names."""
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    if not isinstance(net, TimmBackbone) or any(name in net.state_dict() for name in state):
        return state
    if not net.backbone.state_dict().keys() <= state.keys():
        module = importlib.import_module(type(net.backbone).__module__)
        convert = getattr(module, "checkpoint_filter_fn", None)  # timm's converter of the authors' layouts
        convert = efficientnet_lite.timm_names if net.name == efficientnet_lite.BACKBONE else convert
        try:
            state = convert(state, net.backbone) if convert else state
        except (KeyError, RuntimeError, ValueError, AttributeError, IndexError, TypeError) as error:
            raise UserError(
                f"model.weights are not of {net.name} ({type(error).__name__}: {error}): they have "
                f"{first_few(list(state), 4)}. Choose the model of these weights."
            ) from error
    return _with_prefix(state)


def _with_prefix(state: Mapping[str, Tensor]) -> State:
    return {f"features.backbone.{name}": value for name, value in state.items()}


def _load(net: nn.Module, weights: State, source: str, digest: str | None) -> LoadedWeights:
    own = net.state_dict()
    loaded, resized, skipped = {}, [], []
    for name, value in weights.items():
        if name not in own:
            skipped.append(f"{name} (no such layer)")
        elif value.shape == own[name].shape:
            loaded[name] = value
        elif (fitted := _resize(net, name, value, own[name])) is not None:
            loaded[name] = fitted
            resized.append(f"{name} {_shape(value)} to {_shape(fitted)}")
        else:
            skipped.append(f"{name} ({_shape(value)}, expected {_shape(own[name])})")
    check_finite(Path(source), loaded)
    net.load_state_dict(loaded, strict=False)
    return LoadedWeights(source, digest, list(loaded), resized, skipped, [name for name in own if name not in loaded])


def _resize(net: nn.Module, name: str, value: Tensor, own: Tensor) -> Tensor | None:
    """Adapt a first convolution to other channels or a position embedding to another size, as timm does.

    None if the shapes differ in another way.
    """
    if name.endswith("pos_embed") and value.ndim == own.ndim == 3 and isinstance(net, TimmBackbone):
        grid = net.backbone.patch_embed.grid_size
        num_prefix = own.shape[1] - grid[0] * grid[1]  # class tokens that have a position
        patches = value.shape[1] - num_prefix
        is_square = 0 < patches <= MAX_POSITIONS and math.isqrt(patches) ** 2 == patches
        if value.shape[2] != own.shape[2] or not is_square:
            return None
        positions: Tensor = resample_abs_pos_embed(value.float(), grid, num_prefix_tokens=num_prefix)
        return positions if positions.shape == own.shape else None
    if value.ndim != 4 or value.shape[:1] != own.shape[:1] or value.shape[2:] != own.shape[2:]:
        return None
    channels, in_channels = value.shape[1], own.shape[1]
    if channels == 3 and in_channels == 1:
        return value.float().sum(1, keepdim=True)  # a gray face is one with equal red, green and blue
    return value.float().expand(-1, in_channels, -1, -1) / in_channels if channels == 1 else None


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "()"
