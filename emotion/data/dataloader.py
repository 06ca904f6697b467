"""Batches of row numbers. Order and randomness depend on (seed, epoch, batch, rank) alone."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotion.errors import UserError, counted

MEMORY_SHARE = 0.4  # of an accelerator's free memory that pixels may occupy; the network needs the rest

EVALUATION_FACTOR = 4
"""Batch size of evaluation, which stores no gradients, relative to that of training."""


class RowBatch(NamedTuple):
    """A batch before its pixels are fetched."""

    rows: Tensor  # (B,) int64, indices into the data module's arrays
    seed: int  # of this batch's augmentation and dropout
    training: bool
    epoch_seed: int = 0  # of randomness drawn once per epoch for all rows: sampled targets


class RowLoader:
    """Batches of row numbers, in order for evaluation, or in the order of `sampler` for training.

    A run that resumes within an epoch continues with the next batch: Lightning stores `state_dict` in its checkpoints
    and calls `set_epoch` through the attribute `sampler`, as for a DataLoader. Each process of a distributed run takes
    every `world_size`-th row, starting at its `rank`, in the same number of batches as the others.

    Args:
        rows: The row numbers (N,).
        batch_size: Rows per batch and process.
        seed: Of the order and of each batch's randomness.
        sampler: Returns an epoch's order of the rows, as indices into `rows`, from a generator; None for evaluation.
        rank: Of this process.
        world_size: The number of processes.

    Raises:
        UserError: There are more processes than rows.
    """

    batch_sampler = None  # Lightning reads this attribute of a DataLoader

    def __init__(
        self,
        rows: Tensor,
        batch_size: int,
        seed: int,
        sampler: Callable[[torch.Generator], Tensor] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_processes(len(rows), world_size)
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = self.next_batch = 0
        self._sample_order = sampler
        self.sampler = self  # Lightning calls sampler.set_epoch

    def __len__(self) -> int:
        """Return the batches per epoch and process; training drops incomplete batches, so that shapes are constant."""
        if self._sample_order:
            return max(1, len(self.rows) // self.world_size // self.batch_size)
        return -(-len(self.rows) // self.world_size // self.batch_size)  # of the process with the most rows

    def __iter__(self) -> Iterator[RowBatch]:
        batches, epoch_seed = self.batches(), mix_seeds(self.seed, self.epoch)
        for index in range(self.next_batch, len(self)):
            self.next_batch = (index + 1) % len(self)
            seed = mix_seeds(self.seed, self.epoch, index, self.rank)
            yield RowBatch(self.rows[batches[index]], seed, self._sample_order is not None, epoch_seed)

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch of the next pass; a new epoch starts at its first batch."""
        if epoch != self.epoch:
            self.epoch, self.next_batch = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the current epoch, its next batch and the number of processes."""
        return {"epoch": self.epoch, "next_batch": self.next_batch, "world": self.world_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the last batch of a stored state.

        Raises:
            UserError: The state is within an epoch that another number of processes shared.
        """
        world_size = state.get("world", self.world_size)
        if state["next_batch"] and world_size != self.world_size:
            raise UserError(
                f"The run stopped within an epoch of {counted(world_size, 'process')} and cannot resume there with "
                f"{self.world_size}; set trainer.devices and trainer.num_nodes as before."
            )
        self.epoch, self.next_batch = state["epoch"], state["next_batch"]

    def batches(self) -> Sequence[Tensor]:
        """Return the indices into `rows` of each batch of this process."""
        if not self._sample_order:
            return torch.arange(self.rank, len(self.rows), self.world_size).tensor_split(len(self))
        order = self._sample_order(torch.Generator().manual_seed(mix_seeds(self.seed, self.epoch)))
        share = len(order) // self.world_size
        return torch.split(order[self.rank :: self.world_size][:share], self.batch_size)


def check_processes(rows: int, world_size: int) -> None:
    """Raise UserError if a process would have no row."""
    if rows < world_size:
        raise UserError(
            f"{counted(rows, 'face')} for {counted(world_size, 'process')}; expected at least one each. Reduce "
            f"trainer.devices=NUMBER."
        )


def limit_batches(batches: int, limit: float) -> int:
    """Return the batches that Lightning runs of `batches`: at most `limit` if it is an integer, else that share."""
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def num_evaluated(rows: int, batch_size: int, world_size: int, limit: float) -> int:
    """Return how many of `rows` all processes evaluate with limited batches (see `limit_batches`).

    `batch_size` is that of training.
    """
    size = batch_size * EVALUATION_FACTOR
    loaders = [RowLoader(torch.arange(rows), size, 0, rank=rank, world_size=world_size) for rank in range(world_size)]
    batches = limit_batches(len(loaders[0]), limit)
    return sum(len(batch) for loader in loaders for batch in loader.batches()[:batches])


def mix_seeds(*numbers: int) -> int:
    """Combine numbers into one 63-bit seed with SplitMix64's finalizer."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ state >> 27) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1


def shuffled(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return each index once, in random order."""
    return torch.randperm(len(labels), generator=generator)


def weighted(labels: Tensor, generator: torch.Generator, power: float = 1.0) -> Tensor:
    """Sample indices with replacement, each with probability proportional to n_c ** -power, n_c its class's count.

    Power 1 makes the classes equally frequent, 0.5 is square-root sampling: Mahajan et al. 2018, section 2.2,
    https://arxiv.org/abs/1805.00932.
    """
    weights = labels.bincount().double().pow(-power)[labels].cumsum(0)
    draws = torch.rand(len(labels), generator=generator, dtype=torch.float64) * weights[-1]
    indices = torch.searchsorted(weights, draws, right=True)
    return indices.clamp_(max=len(labels) - 1)  # in case rounding reaches the end


class PixelStore:
    """Pixels (N, H, W) or (N, H, W, 3) from which batches are gathered on `device`.

    Pixels that fit into `share` of the device's free memory (FER2013: 83 MB) are copied there once; larger ones stay
    memory-mapped on the host and each batch is copied. On a CPU nothing but the batch is copied.
    """

    def __init__(self, images: NDArray[np.uint8], device: torch.device, share: float = MEMORY_SHARE) -> None:
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else sys.maxsize
        self.device = device
        self.resident = images.nbytes <= share * free
        self._pixels = torch.from_numpy(images)
        if self.resident:
            self._pixels = self._pixels.to(device)

    def gather(self, rows: Tensor) -> Tensor:
        """Return the uint8 pixels of `rows` (B,) on the device; rows should be there if `resident`, else on the CPU."""
        if self.resident:
            return self._pixels[rows.to(self.device, non_blocking=True)]
        pinned = self.device.type == "cuda"
        batch = torch.empty((len(rows), *self._pixels.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        torch.index_select(self._pixels, 0, rows.cpu(), out=batch)
        return batch.to(self.device, non_blocking=True)
