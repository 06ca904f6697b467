from collections.abc import Callable
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from emotion.config.compose import CONF, compose
from emotion.data.datamodule import EmotionDataModule
from emotion.data.faces import EMOTIONS
from emotion.data.transforms.preprocess import to_float
from emotion.errors import UserError
from emotion.optim.losses import balanced_weights
from emotion.training.setup import make_data, resolve
from tests.conftest import options

Config = Callable[..., DictConfig]
LABELS = [
    name
    for name in options("labels")
    if {*chain.from_iterable(OmegaConf.load(CONF / f"labels/{name}.yaml").values())} <= {*EMOTIONS}
]
"""The schemes without classes that FER2013 lacks, such as contempt."""
MIXUPS = [name for name in options("mixup") if name != "none"]


def module(cfg: DictConfig) -> EmotionDataModule:
    return make_data(resolve(cfg, Path("run")))[0]


def pairs(first: list[str], second: list[str]) -> list[tuple[str, str]]:
    """Combine two lists of options so that each option occurs at least once."""
    n = max(len(first), len(second))
    return list(zip(islice(cycle(first), n), islice(cycle(second), n), strict=True))


@pytest.mark.parametrize(
    ("labels", "split"),
    pairs(LABELS, options("split")),
)
def test_labels_and_splits_combine(labels: str, split: str, small_config: Config) -> None:
    data = module(small_config(f"labels={labels}", f"split={split}"))
    parts = [set(part.tolist()) for part in data.split]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert set(data.labels[data.split.train]) == set(range(len(data.classes)))


@pytest.mark.parametrize(("input_", "augment"), pairs(options("input"), options("augment")))
def test_inputs_and_augmentations_combine(input_: str, augment: str, small_config: Config) -> None:
    data = module(small_config(f"input={input_}", f"augment={augment}", "batch_size=4"))
    faces, targets = data.fetch(next(iter(data.train_dataloader())))
    size, channels = data.hparams["input"]["size"], data.hparams["input"]["channels"]
    assert faces.shape == (4, channels, size, size)
    assert targets.dtype == torch.int64
    assert faces.isfinite().all()


def test_only_training_batches_are_augmented(small_config: Config) -> None:
    data = module(small_config("augment=full"))
    batch = next(iter(data.train_dataloader()))
    plain = data.preprocess(torch.from_numpy(data.faces.images)[batch.rows])
    assert not data.fetch(batch)[0].equal(plain)
    assert data.fetch(batch._replace(training=False))[0].equal(plain)


STILL = {
    "rotate_flip": ["augment.affine.degrees=0"],
    "basic": ["augment.affine={degrees: 0, translate: 0}"],
    "warped": ["augment.affine={degrees: 0, translate: 0, zoom: 0}", "augment.jitter={brightness: 0, contrast: 0}"],
}


@pytest.mark.parametrize("input_", ["grey40", "imagenet64"])
@pytest.mark.parametrize("augment", STILL)
def test_training_faces_have_the_scale_of_evaluation(input_: str, augment: str, small_config: Config) -> None:
    data = module(small_config(f"input={input_}", f"augment={augment}", "augment.flip.p=0", *STILL[augment]))
    batch = next(iter(data.train_dataloader()))
    evaluated = data.fetch(batch._replace(training=False))[0]
    torch.testing.assert_close(data.fetch(batch)[0], evaluated, atol=1e-4, rtol=1e-4)


def test_a_random_crop_replaces_the_center_crop(small_config: Config) -> None:
    data = module(
        small_config(
            "input=grey40",
            "augment=none",
            "+augment={crop: {_target_: torchvision.transforms.v2.RandomCrop, size: 40}}",
        )
    )
    batch = next(iter(data.train_dataloader()))
    whole = torch.from_numpy(data.faces.images)[batch.rows]
    faces = data.preprocess.denormalize(data.fetch(batch)[0])
    views = to_float(whole).unfold(2, 40, 1).unfold(3, 40, 1)[:, 0].flatten(1, 2)
    assert all(((view - face).abs().amax((1, 2)) < 1e-4).any() for view, face in zip(views, faces[:, 0], strict=True))


def test_row_numbers_are_stored(small_config: Config) -> None:
    data = module(small_config())
    data.save_rows(Path("rows.npz"))
    with np.load("rows.npz") as stored:
        for part, rows in data.split._asdict().items():
            np.testing.assert_array_equal(stored[part], rows)


def test_a_class_without_training_faces_is_refused(fer_csv: Path) -> None:
    lines = fer_csv.read_text().splitlines()
    fer_csv.write_text("\n".join(line for line in lines if not line.startswith("1,")))
    with pytest.raises(UserError, match=r"no training face of disgust.*labels=NAME"):
        module(compose("train", "labels=seven", "split=official"))


def test_the_label_of_unsure_faces_is_no_class_for_training(fer_csv: Path, fer_folder: Path) -> None:
    with pytest.raises(UserError, match=r"found a class unclear, .*; expected another name"):
        module(compose("train", "labels=seven", "~labels.neutral", "+labels.unclear=[neutral]", "split=official"))
    for folder in fer_folder.glob("*/neutral"):
        folder.rename(folder.with_name("Unclear"))
    folders = ("data=image_folder", f"data_dir={fer_folder}", "split=official")
    with pytest.raises(UserError, match=r"found a class Unclear, .*; expected another name"):
        module(compose("train", "labels=source", *folders))
    merged = module(compose("train", "labels=seven", "labels.neutral=[unclear]", *folders))
    merged.hparams["labels"] = {"unclear": ["unclear"], "sad": ["sad"]}
    EmotionDataModule(**merged.hparams).setup()  # as evaluation of an earlier checkpoint does


def test_faces_without_a_class_are_counted(fer_csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = compose("train", "labels=four", "split=official", f"data_dir={fer_csv.parent}")
    for _ in range(2):
        module(cfg)
    said = f"{fer_csv}: left out by labels=: 9 angry, 9 disgust, 9 fear"
    assert capsys.readouterr().out.splitlines() == [f"reading {fer_csv} ...", said]


def test_training_needs_all_parts_and_other_verbs_only_the_one_they_use(fer_csv: Path) -> None:
    lines = fer_csv.read_text().splitlines()
    fer_csv.write_text("\n".join(line for line in lines if not line.endswith("Test")))
    with pytest.raises(
        UserError, match=r"no test rows; the data has 21 Training, and the split train 13, val 5.*80_10_10"
    ):
        module(compose("train", "split=random_20", "split.fraction=0.3", "labels=six"))
    folds = module(compose("train", "split=kfold", "split.folds=3"))
    assert [len(part) for part in folds.split] == [6, 6, 6]
    data = EmotionDataModule(**folds.hparams | {"split": {"_target_": "emotion.data.splits.official"}})
    data.setup()
    assert len(data.rows("train")) == 18
    with pytest.raises(UserError, match="no val rows"):
        data.rows("val")


@pytest.mark.parametrize("source", ["auto", "fer2013_csv"])
def test_debug_fdr_takes_a_few_rows_of_the_very_data(source: str, fer_csv: Path) -> None:
    data = module(
        compose("train", "debug=fdr", f"data={source}", "split.max_per_class=2", "labels=seven", "split=official")
    )
    assert data.faces.source == "data/fer2013.csv"
    assert [len(part) for part in data.split] == [14, 14, 14]


def test_overfit_trains_and_validates_on_the_same_unchanged_faces(small_config: Config) -> None:
    data = module(small_config("overfit=8", "batch_size=8", "augment=full", "mixup=either"))
    assert data.split.train.tolist() == data.split.val.tolist()
    batch = next(iter(data.train_dataloader()))
    faces, targets = data.fetch(batch)
    assert faces.equal(data.fetch(batch._replace(training=False))[0])
    assert targets.dtype == torch.int64


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


def test_counts_of_classes_are_of_training_and_of_validation_rows_sampled_from_it(small_config: Config) -> None:
    def counts(*overrides: str) -> list[int]:
        return module(small_config("data.training=10", "labels=six", *overrides)).class_counts.tolist()

    assert counts("split=official") == [10] * 6
    assert counts("split=random_20") == [10] * 6
    assert counts("split=official", "+split.max_per_class=3") == [3] * 6


def mixed_by(data: EmotionDataModule, seed: int) -> set[str]:
    """Return which of MixUp and CutMix explain a training batch, from its unmixed faces and their neighbors."""
    batch = next(iter(data.train_dataloader()))._replace(seed=seed)
    faces, shares = data.fetch(batch)
    own, labels = data.fetch(batch._replace(training=False))
    neighbor, other = own.roll(1, 0), labels.roll(1, 0)
    share = own_share(shares, labels, other)
    found = set()
    if (faces - neighbor).allclose(share * (own - neighbor), atol=1e-5):
        found.add("mixup")
    pasted = ((faces == neighbor) & (faces != own)).any(0).any(0)  # (S, S): in any face
    if ((faces == own) | (faces == neighbor)).all() and pasted.double().mean() == pytest.approx(1 - share, abs=0.02):
        found.add("cutmix")
    return found


def own_share(shares: Tensor, labels: Tensor, other: Tensor) -> float:
    """Return the target share of the faces' own classes, which must be the same for all of a batch."""
    differ = labels != other
    own = shares[differ].gather(1, labels[differ][:, None])
    torch.testing.assert_close(own + shares[differ].gather(1, other[differ][:, None]), torch.ones_like(own))
    assert (own == own[0]).all()
    same = shares[~differ].gather(1, labels[~differ][:, None])
    torch.testing.assert_close(same, torch.ones_like(same))
    return own[0].item()


@pytest.mark.parametrize("mixup", ["mixup", "cutmix"])
def test_faces_and_targets_are_mixed_in_the_same_proportion(mixup: str, small_config: Config) -> None:
    data = module(small_config(f"mixup={mixup}", "augment=none"))
    assert [mixed_by(data, seed) for seed in range(20)] == [{mixup}] * 20


def test_either_applies_exactly_one_to_each_batch(small_config: Config) -> None:
    data = module(small_config("mixup=either", "augment=none"))
    found = [mixed_by(data, seed) for seed in range(60)]
    assert {len(names) for names in found} == {1}
    assert 15 < found.count({"mixup"}) < 45


@pytest.mark.parametrize("input_", options("input"))
def test_mixing_before_normalization_equals_mixing_after_it(input_: str, small_config: Config) -> None:
    data = module(small_config("mixup=mixup", f"input={input_}", "augment=none", "batch_size=4"))
    batch = next(iter(data.train_dataloader()))
    faces, shares = data.fetch(batch)
    own, labels = data.fetch(batch._replace(training=False))
    share = own_share(shares, labels, labels.roll(1, 0))
    torch.testing.assert_close(faces, own.roll(1, 0).lerp(own, share), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mixup", MIXUPS)
def test_a_batch_depends_on_its_seed_alone_and_evaluation_is_not_mixed(mixup: str, small_config: Config) -> None:
    data, plain = module(small_config(f"mixup={mixup}", "augment=strong")), module(small_config())
    batch = next(iter(data.train_dataloader()))
    assert all(one.equal(other) for one, other in zip(data.fetch(batch), data.fetch(batch), strict=True))
    assert not any(
        one.equal(other) for one, other in zip(data.fetch(batch), data.fetch(batch._replace(seed=1)), strict=True)
    )
    for batch in (*data.val_dataloader(), *data.test_dataloader()):
        assert all(one.equal(other) for one, other in zip(data.fetch(batch), plain.fetch(batch), strict=True))


def test_settings_that_older_checkpoints_lack_have_defaults(small_config: Config) -> None:
    hparams = module(small_config()).hparams
    data = EmotionDataModule(**{key: value for key, value in hparams.items() if key not in ("mixup", "mix", "target")})
    data.setup()
    assert (data.mixup, data.hparams["mix"], data.votes) == (None, 0, None)
