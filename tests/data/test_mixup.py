"""MixUp and CutMix of training batches."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from emotion.data.datamodule import EmotionDataModule
from emotion.training.setup import make_data, resolve
from tests.conftest import options

Config = Callable[..., DictConfig]
MIXING = [name for name in options("mixup") if name != "none"]


def module(cfg: DictConfig) -> EmotionDataModule:
    return make_data(resolve(cfg, Path("run")))[0]


def mixed_by(data: EmotionDataModule, seed: int) -> set[str]:
    """Which of the two a batch's faces show, beside their own and their neighbours' unmixed ones."""
    batch = next(iter(data.train_dataloader()))._replace(seed=seed)
    faces, shares = data.fetch(batch)
    own, labels = data.fetch(batch._replace(training=False))
    neighbour, other = own.roll(1, 0), labels.roll(1, 0)
    share = own_share(shares, labels, other)
    found = set()
    if (faces - neighbour).allclose(share * (own - neighbour), atol=1e-5):
        found.add("mixup")
    taken = ((faces == neighbour) & (faces != own)).any(0).any(0)  # (S, S): in any face
    if ((faces == own) | (faces == neighbour)).all() and taken.double().mean() == pytest.approx(1 - share, abs=0.02):
        found.add("cutmix")
    return found


def own_share(shares: Tensor, labels: Tensor, other: Tensor) -> float:
    """What a batch's faces keep of their own class, one number for all."""
    unlike = labels != other
    kept = shares[unlike].gather(1, labels[unlike][:, None])
    torch.testing.assert_close(kept + shares[unlike].gather(1, other[unlike][:, None]), torch.ones_like(kept))
    assert (kept == kept[0]).all()
    torch.testing.assert_close(shares[~unlike].gather(1, labels[~unlike][:, None]), torch.ones(int((~unlike).sum()), 1))
    return kept[0].item()


@pytest.mark.parametrize("mixup", ["mixup", "cutmix"])
def test_faces_and_targets_are_mixed_in_one_proportion(mixup: str, small_config: Config) -> None:
    data = module(small_config(f"mixup={mixup}", "augment=none"))
    assert [mixed_by(data, seed) for seed in range(20)] == [{mixup}] * 20


def test_either_mixes_each_batch_by_exactly_one_of_the_two(small_config: Config) -> None:
    data = module(small_config("mixup=either", "augment=none"))
    found = [mixed_by(data, seed) for seed in range(60)]
    assert {len(one) for one in found} == {1}
    assert 15 < found.count({"mixup"}) < 45


@pytest.mark.parametrize("input_", options("input"))
def test_mixing_before_normalisation_is_mixing_after_it(input_: str, small_config: Config) -> None:
    data = module(small_config("mixup=mixup", f"input={input_}", "augment=none", "batch_size=4"))
    batch = next(iter(data.train_dataloader()))
    faces, shares = data.fetch(batch)
    own, labels = data.fetch(batch._replace(training=False))
    share = own_share(shares, labels, labels.roll(1, 0))
    torch.testing.assert_close(faces, own.roll(1, 0).lerp(own, share), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mixup", MIXING)
def test_only_training_batches_are_mixed(mixup: str, small_config: Config) -> None:
    data, plain = module(small_config(f"mixup={mixup}")), module(small_config())
    for batch in (*data.val_dataloader(), *data.test_dataloader()):
        (faces, targets), (own, labels) = data.fetch(batch), plain.fetch(batch)
        assert faces.equal(own)
        assert targets.equal(labels)


@pytest.mark.parametrize("mixup", MIXING)
def test_a_mixed_batch_is_a_function_of_its_seed(mixup: str, small_config: Config) -> None:
    data = module(small_config(f"mixup={mixup}", "augment=strong"))
    batch = next(iter(data.train_dataloader()))
    assert all(one.equal(other) for one, other in zip(data.fetch(batch), data.fetch(batch), strict=True))
    assert not data.fetch(batch)[1].equal(data.fetch(batch._replace(seed=1))[1])


def test_overfit_switches_mixing_off(small_config: Config) -> None:
    data = module(small_config("overfit=8", "batch_size=8", "mixup=either"))
    assert data.fetch(next(iter(data.train_dataloader())))[1].dtype == torch.int64


def test_data_modules_of_before_mixing_are_built_without_it(small_config: Config) -> None:
    data = module(small_config())
    older = {key: value for key, value in data.hparams.items() if key != "mixup"}
    assert EmotionDataModule(**older).mixup is None
