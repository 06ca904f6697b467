"""Several processes: who started them, and a network whose weights they share among them (FSDP)."""

from collections.abc import Mapping
from typing import Any

import torch.distributed
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from emotion.errors import UserError

SHARDING = "ModelParallelStrategy"
RANK_ZERO_NETWORK_CALLBACKS = ("tensorboard_pictures", "explanations", "weight_statistics")
"""Callbacks of the first process alone, which where weights are shared has no network to ask."""


def is_rank_zero() -> bool:
    """Whether this is the one process of a run, or the first of several, which writes and speaks for all."""
    return not getattr(rank_zero_only, "rank", None)


def slurm_environment(devices: int | str, nodes: int) -> list[SLURMEnvironment]:
    """SLURM as a plugin where srun started this process; Lightning's own would requeue the job at SIGUSR1, too.

    Raises:
        UserError: the job's tasks are not the trainer's processes.
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
    """Whether a trainer's settings share the weights among its processes."""
    strategy = trainer.get("strategy")
    return isinstance(strategy, Mapping) and str(strategy.get("_target_")).endswith(SHARDING)


def shard(net: nn.Module, mesh: DeviceMesh) -> None:
    """Share every block's weights among the processes of a node, each node with a copy, and then what is in no block.

    Lightning's mesh (nodes, processes of one) is fully_shard's (copies, shares of a copy).
    """
    net.to(memory_format=torch.contiguous_format)  # the one in which fully_shard takes weights; maps keep theirs
    over = mesh if mesh.size(0) > 1 else mesh[mesh.mesh_dim_names[1]]  # type: ignore[index]
    for block in blocks(net):
        fully_shard(block, mesh=over)
    fully_shard(net, mesh=over)


def blocks(net: nn.Module) -> list[nn.Module]:
    """The modules that are a whole block of the network (`depths`), its head left out; several on a par are none."""
    depths: dict[str, int] = net.depths()  # type: ignore[operator]
    of_a_block = [{name for name in depths if depths[name] == depth} for depth in range(max(depths.values()))]
    found: dict[int, nn.Module] = {}
    for prefix, module in net.named_modules():
        own = {f"{prefix}.{name}" for name, _ in module.named_parameters()}
        if own in of_a_block:
            found.setdefault(of_a_block.index(own), module)  # the outermost, which is what the network calls
    return list(found.values())


def broadcast_buffers(net: nn.Module) -> None:
    """Have every process hold the first one's buffers, which are whole in each."""
    for buffer in net.buffers():
        torch.distributed.broadcast(buffer, 0)
