"""Runs of several processes: what started them, and sharding a network's weights among them (FSDP)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.accelerator
import torch.distributed
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from emotion.errors import UserError

SHARDING_STRATEGY = "ModelParallelStrategy"
RANK_ZERO_NETWORK_CALLBACKS = ("tensorboard_pictures", "explanations", "weight_statistics")
"""Callbacks that run the network on rank 0 only, which is impossible with sharded weights."""


def is_rank_zero() -> bool:
    """Return whether this process writes and prints for the run: it is the only one or has rank 0."""
    return not getattr(rank_zero_only, "rank", None)


def slurm_environment(devices: int | str, nodes: int) -> list[SLURMEnvironment]:
    """Return a plugin if srun started this process; unlike Lightning's own it does not requeue at SIGUSR1.

    Raises:
        UserError: The tasks of the job do not match the trainer's devices and nodes.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    try:
        environment = SLURMEnvironment(auto_requeue=False)
        if isinstance(devices, int) and devices > 0:
            environment.validate_settings(devices, nodes)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"SLURM: {error}") from error
    return [environment]


def is_sharded(trainer: Mapping[str, Any]) -> bool:
    """Return whether the trainer's settings shard the weights among its processes."""
    strategy = trainer.get("strategy")
    return isinstance(strategy, Mapping) and str(strategy.get("_target_")).endswith(SHARDING_STRATEGY)


def is_replicated(trainer: Mapping[str, Any]) -> bool:
    """Return whether several processes train copies of the network (DDP), as Lightning does with strategy "auto"."""
    strategy, devices = trainer.get("strategy", "auto"), trainer["devices"]
    if strategy != "auto":
        return bool(strategy == "ddp")
    if devices in ("auto", -1):
        devices = 1 if trainer["accelerator"] == "cpu" else torch.accelerator.device_count()
    count = len(devices) if isinstance(devices, Sequence) else devices
    return count > 1 or trainer.get("num_nodes", 1) > 1


def shard(net: nn.Module, mesh: DeviceMesh) -> None:
    """Shard each block's weights, then the remaining ones, among the processes of a node; each node has a copy.

    Args:
        net: The network, changed in place.
        mesh: Lightning's mesh (nodes, processes per node), which fully_shard takes as (replicas, shards).
    """
    net.to(memory_format=torch.contiguous_format)  # required by fully_shard; activations keep their format
    shards = mesh if mesh.size(0) > 1 else mesh[mesh.mesh_dim_names[1]]  # type: ignore[index]
    for block in blocks(net):
        fully_shard(block, mesh=shards)
    fully_shard(net, mesh=shards)


def blocks(net: nn.Module) -> list[nn.Module]:
    """Return the outermost modules whose parameters are exactly those of one depth (`net.depths()`), without the head.

    A depth that consists of several modules contributes none.
    """
    depths: dict[str, int] = net.depths()  # type: ignore[operator]
    parameters = [{name for name in depths if depths[name] == depth} for depth in range(max(depths.values()))]
    outermost: dict[int, nn.Module] = {}
    for prefix, module in net.named_modules():
        own = {f"{prefix}.{name}" for name, _ in module.named_parameters()}
        if own in parameters:
            outermost.setdefault(parameters.index(own), module)
    return list(outermost.values())


def broadcast_buffers(net: nn.Module) -> None:
    """Copy rank 0's buffers, which are not sharded, to all processes."""
    for buffer in net.buffers():
        torch.distributed.broadcast(buffer, 0)
