from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from emotion.data.dataloader import Pixels
from emotion.training.setup import make_data, resolve

CPU = torch.device("cpu")
no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
HOSTS = [CPU, pytest.param(torch.device("cuda"), marks=no_cuda)]


@pytest.mark.parametrize("device", HOSTS)
@pytest.mark.parametrize("shape", [(20, 6, 6), (20, 6, 6, 3)])
def test_pixels_that_stay_on_the_host_give_the_same_batches(device: torch.device, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    here, there = Pixels(images, device), Pixels(images, device, share=0)
    rows = torch.tensor([3, 19, 3, 0])
    assert (here.resident, there.resident) == (True, False)
    assert here.take(rows).equal(there.take(rows))
    assert there.take(rows.to(device)).equal(here.take(rows.to(device)))
    assert there.take(rows).device.type == device.type


def test_on_a_processor_pixels_are_not_copied() -> None:
    images = np.zeros((2, 3, 3), np.uint8)
    pixels = Pixels(images, CPU)
    images[1] = 7
    assert pixels.take(torch.tensor([1])).unique().tolist() == [7]


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_is_the_same_whether_its_pixels_are_resident(
    training: bool, small_config: Callable[..., DictConfig]
) -> None:
    data, _ = make_data(resolve(small_config("augment=full"), Path("run")))
    batch = next(iter(data.train_dataloader()))._replace(training=training)
    faces, targets = data.fetch(batch)
    data._pixels = Pixels(data.faces.images, CPU, share=0)
    again, same = data.fetch(batch)
    assert faces.equal(again)
    assert targets.equal(same)
