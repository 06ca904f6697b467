"""Batches as row numbers, their order and their randomness a function of (seed, epoch, batch) and of nothing else."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotion.errors import UserError


class RowBatch(NamedTuple):
    """A batch before its pixels are fetched."""

    rows: Tensor  # (B,) int64, places in the data module's arrays
    seed: int  # for everything random that happens to this batch: augmentation, dropout
    training: bool
    epoch_seed: int = 0  # for what is drawn once an epoch, of all rows: sampled targets


class RowLoader:
    """Row numbers in batches: to train, as `draw` orders their places for an epoch; without it, in order.

    A run resumed in the middle of an epoch goes on with the very next batch: Lightning stores `state_dict` in its
    checkpoints, and calls `set_epoch` through the attribute `sampler` as it does for a DataLoader's. Every process of
    a distributed run takes each `world`-th row, from its `rank` on, in as many batches as every other: processes that
    wait for each other once a batch are never one short.

    Raises:
        UserError: there are more processes than rows.
    """

    batch_sampler = None  # Lightning looks for both of a DataLoader's samplers

    def __init__(
        self,
        rows: Tensor,
        batch_size: int,
        seed: int,
        draw: Callable[[torch.Generator], Tensor] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        check_processes(len(rows), world)
        self.rows, self.batch_size, self.seed, self.draw = rows, batch_size, seed, draw
        self.rank, self.world = rank, world
        self.epoch = self.next_batch = 0
        self.sampler = self

    def __len__(self) -> int:
        """Batches an epoch and process; in training only whole ones: every batch costs the same and compiles once."""
        if self.draw:
            return max(1, len(self.rows) // self.world // self.batch_size)
        return -(-len(self.rows) // self.world // self.batch_size)  # of the process with the most rows

    def __iter__(self) -> Iterator[RowBatch]:
        parts = self._parts()
        for index in range(self.next_batch, len(self)):
            self.next_batch = (index + 1) % len(self)
            yield RowBatch(self.rows[parts[index]], self._seed(index), self.draw is not None, self._epoch_seed())

    def set_epoch(self, epoch: int) -> None:
        """Which epoch's order the next pass takes, from its first batch on unless it is the epoch under way."""
        if epoch != self.epoch:
            self.epoch, self.next_batch = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """The epoch under way, its next batch, and how many processes share it."""
        return {"epoch": self.epoch, "next_batch": self.next_batch, "world": self.world}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begin the next pass at the batch after the last one that was handed out.

        Raises:
            UserError: within an epoch: another number of processes had it, and shared its rows out in another way.
        """
        world = state.get("world", self.world)
        if state["next_batch"] and world != self.world:
            raise UserError(
                f"The run was stopped within an epoch of {world} processes and cannot go on from there with "
                f"{self.world}; expected as many: trainer.devices and trainer.num_nodes as before."
            )
        self.epoch, self.next_batch = state["epoch"], state["next_batch"]

    def _parts(self) -> Sequence[Tensor]:
        """Places of each batch's rows: in training equally many in every process, else as even as they come out."""
        if not self.draw:
            return torch.arange(self.rank, len(self.rows), self.world).tensor_split(len(self))
        order = self.draw(torch.Generator().manual_seed(self._epoch_seed()))
        each = len(order) // self.world
        return torch.split(order[self.rank :: self.world][:each], self.batch_size)

    def _epoch_seed(self) -> int:
        return _mixed(self.seed, self.epoch)

    def _seed(self, index: int) -> int:
        return _mixed(self.seed, self.epoch, index, self.rank)


def check_processes(rows: int, world: int) -> None:
    """Raises UserError where some process would have no row."""
    if rows < world:
        raise UserError(
            f"{rows} faces for {world} processes; expected one for each. Take fewer: trainer.devices=NUMBER."
        )


def _mixed(*numbers: int) -> int:
    """One 63-bit seed from several numbers, unlike for any other numbers (SplitMix64's finaliser)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ state >> 27) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1


SHARE = 0.4  # of an accelerator's free memory that pixels may take; the network needs the rest


class Pixels:
    """Pixels (N, H, W) or (N, H, W, 3), taken some rows at a time to `device`.

    FER2013 is 83 MB: copied once, a batch costs no copy. What is larger than `share` of the device's free memory stays
    memory-mapped on the host, and a batch is gathered there. On a processor nothing is copied but the batch.
    """

    def __init__(self, images: NDArray[np.uint8], device: torch.device, share: float = SHARE) -> None:
        self.device = device
        self.resident = images.nbytes <= share * _free(device)
        self._pixels = torch.from_numpy(images)
        if self.resident:
            self._pixels = self._pixels.to(device)

    def take(self, rows: Tensor) -> Tensor:
        """The pixels of `rows` (B,), uint8, on the device; the rows are wanted there if the pixels are, else not."""
        if self.resident:
            return self._pixels[rows.to(self.device, non_blocking=True)]
        pinned = self.device.type == "cuda"
        batch = torch.empty((len(rows), *self._pixels.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        torch.index_select(self._pixels, 0, rows.cpu(), out=batch)
        return batch.to(self.device, non_blocking=True)


def _free(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else sys.maxsize


def shuffled(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Every face once."""
    return torch.randperm(len(labels), generator=generator)


def weighted(labels: Tensor, generator: torch.Generator, power: float = 1.0) -> Tensor:
    """With replacement, a face of a class of n_c faces with probability proportional to n_c ** -power.

    Power 1 makes the classes equally frequent, 0.5 is square-root sampling: Mahajan et al. 2018, section 2.2,
    https://arxiv.org/abs/1805.00932.
    """
    weights = labels.bincount().double().pow(-power)[labels].cumsum(0)
    draws = torch.rand(len(labels), generator=generator, dtype=torch.float64) * weights[-1]
    return torch.searchsorted(weights, draws, right=True).clamp_(max=len(labels) - 1)  # should rounding reach the end
