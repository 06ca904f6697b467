from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from emotion.config.compose import compose
from emotion.data.datamodule import EmotionDataModule
from emotion.errors import UserError
from emotion.optim.losses import balanced_weights
from emotion.training.setup import make_data, resolve
from tests.conftest import options

Config = Callable[..., DictConfig]


def module(cfg: DictConfig) -> EmotionDataModule:
    return make_data(resolve(cfg, Path("run")))[0]


@pytest.mark.parametrize("labels", [name for name in options("labels") if name != "ferplus"])  # contempt is FER+'s
@pytest.mark.parametrize("split", options("split"))
def test_any_labels_with_any_split(labels: str, split: str, small_config: Config) -> None:
    data = module(small_config(f"labels={labels}", f"split={split}"))
    parts = [set(part.tolist()) for part in data.split]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert set(data.labels[data.split.train]) == set(range(len(data.classes)))


@pytest.mark.parametrize("input_", options("input"))
@pytest.mark.parametrize("augment", options("augment"))
def test_any_input_with_any_augmentation(input_: str, augment: str, small_config: Config) -> None:
    data = module(small_config(f"input={input_}", f"augment={augment}", "batch_size=4"))
    faces, targets = data.fetch(next(iter(data.train_dataloader())))
    size, channels = data.hparams["input"]["size"], data.hparams["input"]["channels"]
    assert faces.shape == (4, channels, size, size)
    assert targets.dtype == torch.int64
    assert faces.isfinite().all()


def test_training_batches_are_changed_and_others_are_not(small_config: Config) -> None:
    data = module(small_config("augment=full"))
    batch = next(iter(data.train_dataloader()))
    plain = data.preprocess(torch.from_numpy(data.faces.images)[batch.rows])
    assert not data.fetch(batch)[0].equal(plain)
    assert data.fetch(batch._replace(training=False))[0].equal(plain)


def test_a_batch_is_a_function_of_its_seed(small_config: Config) -> None:
    data = module(small_config("augment=strong"))
    batch = next(iter(data.train_dataloader()))
    assert data.fetch(batch)[0].equal(data.fetch(batch)[0])
    assert not data.fetch(batch)[0].equal(data.fetch(batch._replace(seed=1))[0])


def test_row_numbers_are_stored(small_config: Config) -> None:
    data = module(small_config())
    data.save_rows(Path("rows.npz"))
    with np.load("rows.npz") as stored:
        for part, rows in data.split._asdict().items():
            np.testing.assert_array_equal(stored[part], rows)


def test_class_without_training_faces_is_refused(fer_csv: Path) -> None:
    lines = fer_csv.read_text().splitlines()
    fer_csv.write_text("\n".join(line for line in lines if not line.startswith("1,")))
    with pytest.raises(UserError, match=r"no training face of disgust.*labels=NAME"):
        module(compose("train", "labels=seven", "split=official"))


def test_overfit_trains_and_validates_on_the_same_faces(small_config: Config) -> None:
    data = module(small_config("overfit=8", "batch_size=8", "augment=full"))
    assert data.split.train.tolist() == data.split.val.tolist()
    batch = next(iter(data.train_dataloader()))
    assert data.fetch(batch)[0].equal(data.fetch(batch._replace(training=False))[0])


@pytest.mark.fer2013
def test_published_splits_and_weights_of_fer2013(fer2013: Path) -> None:
    def real(*overrides: str) -> EmotionDataModule:
        return module(compose("train", f"data_dir={fer2013.parent}", *overrides))

    six = real("labels=six", "split=random_20")
    assert [len(part) for part in six.split] == [18996, 4748, 5945]
    weights = balanced_weights(six.class_counts.tolist()).tolist()
    assert [round(weight, 3) for weight in weights] == [0.548, 1.248, 0.819, 0.991, 9.076, 0.966]
    seven = real("labels=seven", "split=stratified_15")
    assert [len(part) for part in seven.split] == [24406, 4303, 7178]
    assert len(real("labels=four", "split=official").split.train) == 20181
