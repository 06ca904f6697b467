"""The order of faces depends only on seed, epoch and batch, not on resuming or the number of processes."""

import pytest
import torch
from torch import Tensor

from emotion.config.instantiate import instantiate
from emotion.data.dataloader import RowLoader
from tests.counted import Tally

ROWS, SIZE = torch.arange(1000, 1260), 16
STEPS = (0, 1, 10, 15)  # the last: sixteen full batches
EPOCHS = (0, 1, 3)
SAMPLERS = {"shuffled": {"_target_": "emotion.data.dataloader.shuffled"},
            "weighted": {"_target_": "emotion.data.dataloader.weighted"}}  # fmt: skip


def loader(sampler: str, rank: int = 0, world: int = 1) -> RowLoader:
    labels = torch.arange(len(ROWS)) % 7

    def sample(generator: torch.Generator) -> Tensor:
        order: Tensor = instantiate(SAMPLERS[sampler], labels, generator)
        return order

    return RowLoader(ROWS, SIZE, seed=5, sampler=sample, rank=rank, world_size=world)


def uninterrupted(sampler: str, epochs: int) -> list[list[tuple[list[int], int]]]:
    """Return rows and seed of each batch of each epoch of an uninterrupted run."""
    one, found = loader(sampler), []
    for epoch in range(epochs):
        one.set_epoch(epoch)
        found.append([(batch.rows.tolist(), batch.seed) for batch in one])
    return found


@pytest.mark.promise("order")
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_resumed_run_continues_with_the_same_batches(sampler: str, tally: Tally) -> None:
    whole = uninterrupted(sampler, max(EPOCHS) + 2)
    assert len({tuple(rows) for epoch in whole for rows, _ in epoch}) == len(whole) * len(whole[0])
    for epoch in EPOCHS:
        for step in STEPS:
            with tally(f"{sampler} epoch {epoch} step {step}"):
                stopped = loader(sampler)
                stopped.set_epoch(epoch)
                batches = iter(stopped)
                for _ in range(step + 1):
                    next(batches)
                state = stopped.state_dict()
                torch.manual_seed(step)
                resumed = loader(sampler)
                resumed.load_state_dict(state)
                rest = []
                for later in (epoch, epoch + 1)[step == STEPS[-1] :]:  # after the last batch follows the next epoch
                    resumed.set_epoch(later)
                    rest += [(batch.rows.tolist(), batch.seed) for batch in resumed]
                assert rest == [*whole[epoch][step + 1 :], *whole[epoch + 1]]


@pytest.mark.promise("order")
@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_share_the_order_of_one_process(world: int, tally: Tally) -> None:
    whole = uninterrupted("shuffled", max(EPOCHS) + 1)
    for epoch in EPOCHS:
        with tally(f"{world} processes, epoch {epoch}"):
            shares = []
            for rank in range(world):
                one = loader("shuffled", rank, world)
                one.set_epoch(epoch)
                shares.append(torch.cat([batch.rows for batch in one]))
            order = [row for rows, _ in whole[epoch] for row in rows]
            assert torch.stack(shares, 1).flatten().tolist() == order[: world * len(shares[0])]
