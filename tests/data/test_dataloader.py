import torch

from emotion.data.dataloader import RowBatch, RowLoader

ROWS = torch.arange(100, 150)


def shuffle(generator: torch.Generator) -> torch.Tensor:
    return torch.randperm(len(ROWS), generator=generator)


def taken(loader: RowLoader, epoch: int = 0) -> list[RowBatch]:
    loader.set_epoch(epoch)
    return list(loader)


def test_an_epoch_takes_whole_batches_of_different_rows() -> None:
    batches = taken(RowLoader(ROWS, 8, 0, shuffle))
    rows = torch.cat([batch.rows for batch in batches])
    assert [len(batch.rows) for batch in batches] == [8] * 6
    assert len(rows.unique()) == 48


def test_without_shuffling_every_row_comes_once_in_order() -> None:
    assert torch.cat([batch.rows for batch in taken(RowLoader(ROWS, 8, seed=0))]).equal(ROWS)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat([b.rows for b in taken(RowLoader(ROWS, 8, seed, shuffle), epoch)]).tolist()

    assert order(0, 3) == order(0, 3)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_every_batch_of_every_epoch_has_its_own_seed() -> None:
    loader = RowLoader(ROWS, 8, 0, shuffle)
    seeds = {batch.seed for epoch in range(20) for batch in taken(loader, epoch)}
    assert len(seeds) == 20 * 6


def test_restored_loader_goes_on_with_the_next_batch() -> None:
    straight = taken(RowLoader(ROWS, 8, 0, shuffle), epoch=4)
    stopped = RowLoader(ROWS, 8, 0, shuffle)
    stopped.set_epoch(4)
    passing = iter(stopped)
    first = [next(passing) for _ in range(2)]
    resumed = RowLoader(ROWS, 8, 0, shuffle)
    resumed.load_state_dict(stopped.state_dict())
    rest = taken(resumed, epoch=4)  # Lightning calls set_epoch in a resumed epoch, too
    assert [b.rows.tolist() for b in first + rest] == [b.rows.tolist() for b in straight]
    assert [b.seed for b in first + rest] == [b.seed for b in straight]


def test_an_epoch_left_early_does_not_shorten_the_next() -> None:
    loader = RowLoader(ROWS, 8, 0, shuffle)
    next(iter(loader))
    assert len(taken(loader, epoch=1)) == 6


def test_processes_share_an_epoch_without_overlap() -> None:
    parts = [taken(RowLoader(ROWS, 5, 0, shuffle, rank=rank, world=2)) for rank in range(2)]
    rows = torch.cat([batch.rows for part in parts for batch in part])
    assert [len(part) for part in parts] == [5, 5]
    assert len(rows.unique()) == 50


def test_processes_score_every_row_once() -> None:
    parts = [taken(RowLoader(ROWS, 8, seed=0, rank=rank, world=3)) for rank in range(3)]
    rows = torch.cat([batch.rows for part in parts for batch in part])
    assert rows.sort().values.equal(ROWS)


def test_fewer_rows_than_a_batch_are_one_batch() -> None:
    assert [
        len(batch.rows)
        for batch in taken(RowLoader(ROWS[:3], 8, 0, lambda generator: torch.randperm(3, generator=generator)))
    ] == [3]
