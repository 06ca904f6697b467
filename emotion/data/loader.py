"""Batches as row numbers, their order and their randomness a function of (seed, epoch, batch) and of nothing else."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor


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
    a distributed run takes each `world`-th row, from its `rank` on.
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
        self.rows, self.batch_size, self.seed, self.draw = rows, batch_size, seed, draw
        self.rank, self.world = rank, world
        self.epoch = self.next_batch = 0
        self.sampler = self

    def __len__(self) -> int:
        """Batches an epoch; in training only whole ones, so that every batch costs the same and compiles once."""
        if self.draw:
            return max(1, len(self.rows) // self.world // self.batch_size)
        return -(-len(range(self.rank, len(self.rows), self.world)) // self.batch_size)

    def __iter__(self) -> Iterator[RowBatch]:
        order = self._order()
        for index in range(self.next_batch, len(self)):
            self.next_batch = (index + 1) % len(self)
            part = order[index * self.batch_size : (index + 1) * self.batch_size]
            yield RowBatch(self.rows[part], self._seed(index), self.draw is not None, self._epoch_seed())

    def set_epoch(self, epoch: int) -> None:
        """Which epoch's order the next pass takes, from its first batch on unless it is the epoch under way."""
        if epoch != self.epoch:
            self.epoch, self.next_batch = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """The epoch under way and its next batch."""
        return {"epoch": self.epoch, "next_batch": self.next_batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begin the next pass at the batch after the last one that was handed out."""
        self.epoch, self.next_batch = state["epoch"], state["next_batch"]

    def _order(self) -> Tensor:
        if not self.draw:
            return torch.arange(self.rank, len(self.rows), self.world)
        return self.draw(torch.Generator().manual_seed(self._epoch_seed()))[self.rank :: self.world]

    def _epoch_seed(self) -> int:
        return _mixed(self.seed, self.epoch)

    def _seed(self, index: int) -> int:
        return _mixed(self.seed, self.epoch, index, self.rank)


def _mixed(*numbers: int) -> int:
    """One 63-bit seed from several numbers, unlike for any other numbers (SplitMix64's finaliser)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ state >> 27) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1
