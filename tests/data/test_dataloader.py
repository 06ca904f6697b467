"""Batches, their order and their pixels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from emotion.data.dataloader import PixelStore, RowBatch, RowLoader, num_evaluated, shuffled, weighted
from emotion.training.setup import make_data, resolve

ROWS = torch.arange(100, 150)
LABELS = torch.tensor([0] * 9000 + [1] * 900 + [2] * 100)
CPU = torch.device("cpu")
no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def shuffle(generator: torch.Generator) -> torch.Tensor:
    return torch.randperm(len(ROWS), generator=generator)


def batches(loader: RowLoader, epoch: int = 0) -> list[RowBatch]:
    loader.set_epoch(epoch)
    return list(loader)


def rows_of(some: list[RowBatch]) -> torch.Tensor:
    return torch.cat([batch.rows for batch in some])


def test_a_training_epoch_has_complete_batches_of_distinct_rows() -> None:
    found = batches(RowLoader(ROWS, 8, 0, shuffle))
    assert [len(batch.rows) for batch in found] == [8] * 6
    assert len(rows_of(found).unique()) == 48


def test_fewer_rows_than_a_batch_are_one_batch() -> None:
    (batch,) = batches(RowLoader(ROWS[:3], 8, 0, lambda generator: torch.randperm(3, generator=generator)))
    assert len(batch.rows) == 3


def test_evaluation_takes_every_row_once_in_order() -> None:
    assert rows_of(batches(RowLoader(ROWS, 8, seed=0))).equal(ROWS)


@pytest.mark.parametrize(
    ("world_size", "limit", "expected"), [(1, 1.0, 11), (1, 2, 8), (1, 0.5, 4), (2, 1, 6), (2, 2, 11), (1, 0, 0)]
)
def test_limited_batches_evaluate_fewer_rows(world_size: int, limit: float, expected: int) -> None:
    """Eleven rows in batches of at most four: 4, 4 and 3, or of two processes 3 and 3, and 3 and 2."""
    assert num_evaluated(11, 1, world_size, limit) == expected


def test_every_run_and_epoch_has_its_own_order_and_every_batch_its_own_seed() -> None:
    """That resuming and distributing do not change them is tested in tests/promises/test_order.py."""
    epochs = [batches(RowLoader(ROWS, 8, seed, shuffle), epoch) for seed in range(3) for epoch in range(20)]
    assert len({tuple(rows_of(epoch).tolist()) for epoch in epochs}) == 60
    assert len({batch.seed for epoch in epochs for batch in epoch}) == 60 * 6


def test_an_epoch_left_early_does_not_shorten_the_next() -> None:
    loader = RowLoader(ROWS, 8, 0, shuffle)
    next(iter(loader))
    assert len(batches(loader, epoch=1)) == 6


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shuffled_takes_every_face_once() -> None:
    assert shuffled(LABELS, generator()).sort().values.equal(torch.arange(10_000))


@pytest.mark.parametrize(
    ("power", "shares"),
    [(0, [0.9, 0.09, 0.01]), (1, [1 / 3, 1 / 3, 1 / 3]), (0.5, [0.7034, 0.2224, 0.0742])],  # 95 : 30 : 10 of 135
)
def test_weighted_frequencies_are_counts_to_the_power(power: float, shares: list[float]) -> None:
    sampled = LABELS[weighted(LABELS, generator(), power)].bincount(minlength=3) / len(LABELS)
    assert sampled.tolist() == pytest.approx(shares, abs=0.015)  # three standard deviations of a share of 10,000


def test_weighted_samples_the_faces_of_a_class_evenly() -> None:
    sampled = torch.cat([weighted(LABELS, generator(seed), 1.0) for seed in range(30)])
    frequency = sampled[sampled >= 9900].bincount(minlength=10_000)[9900:].float()
    assert frequency.mean() == pytest.approx(1000, rel=0.02)
    assert frequency.std() < 2 * 1000**0.5


def test_sampling_depends_on_the_generator_alone() -> None:
    first, same, other = (weighted(LABELS, generator(seed)) for seed in (1, 1, 2))
    assert first.equal(same)
    assert not first.equal(other)


@pytest.mark.parametrize("device", [CPU, pytest.param(torch.device("cuda"), marks=no_cuda)])
@pytest.mark.parametrize("shape", [(20, 6, 6), (20, 6, 6, 3)])
def test_pixels_on_the_host_give_the_same_batches(device: torch.device, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    resident, on_host = PixelStore(images, device), PixelStore(images, device, share=0)
    rows = torch.tensor([3, 19, 3, 0])
    assert (resident.resident, on_host.resident) == (True, False)
    assert resident.gather(rows).equal(on_host.gather(rows))
    assert on_host.gather(rows.to(device)).equal(resident.gather(rows.to(device)))
    assert on_host.gather(rows).device.type == device.type


def test_pixels_are_not_copied_on_a_cpu() -> None:
    images = np.zeros((2, 3, 3), np.uint8)
    pixels = PixelStore(images, CPU)
    images[1] = 7
    assert pixels.gather(torch.tensor([1])).unique().tolist() == [7]


def test_a_batch_does_not_depend_on_where_pixels_are(small_config: Callable[..., DictConfig]) -> None:
    data, _ = make_data(resolve(small_config("augment=full"), Path("run")))
    batch = next(iter(data.train_dataloader()))
    resident = [data.fetch(batch._replace(training=training)) for training in (True, False)]
    data._pixels = PixelStore(data.faces.images, CPU, share=0)
    for training, (faces, targets) in zip((True, False), resident, strict=True):
        again, same = data.fetch(batch._replace(training=training))
        assert faces.equal(again)
        assert targets.equal(same)
