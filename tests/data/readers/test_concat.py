"""A second source adds rows to training, and to nothing else."""

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import hydra.utils
import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from emotion import prepare
from emotion.checkpoints.load import load_checkpoint
from emotion.config.compose import compose
from emotion.data.datamodule import EmotionDataModule
from emotion.data.faces import EMOTIONS, MIXED, TRAINING, Faces
from emotion.data.labels import NO_CLASS
from emotion.data.readers import concat
from emotion.errors import UserError
from emotion.evaluate import evaluate
from emotion.records.recipe import group_by_recipe
from emotion.records.run_folder import find_finished
from emotion.train import train
from emotion.training.setup import make_data, resolve
from tests.conftest import options, representative
from tests.data.readers.test_path_list import write

Config = Callable[..., DictConfig]
Run = Callable[..., Path]
RUN = Path("run")
TWO = ("labels=source", "+labels.sad=[sad]", "+labels.happy=[happy]")
MIX = ("data/mix=synthetic", "data.mix.source.training=10", "labels=seven")


def module(*overrides: str) -> EmotionDataModule:
    return make_data(resolve(compose("train", *overrides), RUN))[0]


@pytest.fixture
def extra() -> str:
    """Thirty wide red images each of sad and happy, listed in data/mix.csv."""
    Path("data/extra").mkdir(parents=True, exist_ok=True)
    rows = [(f"extra/{i}.png", ("sad", "happy")[i % 2]) for i in range(60)]
    for name, _ in rows:
        Image.new("RGB", (90, 60), (255, 0, 0)).save(f"data/{name}")
    return write("data/mix.csv", *rows)


@pytest.mark.parametrize("split", representative(options("split"), "stratified_15"))
def test_mixed_rows_are_in_training_alone(split: str, small_config: Config) -> None:
    alone, _ = make_data(resolve(small_config("labels=seven", f"split={split}"), RUN))
    data, _ = make_data(resolve(small_config(*MIX, f"split={split}", "data.mix.percent=30"), RUN))
    for part in ("val", "test"):
        np.testing.assert_array_equal(getattr(data.split, part), getattr(alone.split, part))
    mixed = data.split.train[data.faces.usage[data.split.train] == MIXED]
    np.testing.assert_array_equal(np.setdiff1d(data.split.train, mixed), alone.split.train)
    np.testing.assert_array_equal(data.faces.images[: len(alone.faces)], alone.faces.images)
    own = np.bincount(alone.labels[alone.split.train])
    assert np.bincount(data.labels[mixed]).tolist() == [int(0.3 * n) for n in own]
    np.testing.assert_array_equal(data.class_counts - alone.class_counts, np.bincount(data.labels[mixed]))
    assert not np.isin(mixed, np.concatenate(data.split[1:])).any()


def test_a_percentage_is_not_rounded_down_to_the_row_below() -> None:
    """0.29 * 100 is 28.999999999999996 in floating point."""
    usage, labels = np.repeat([TRAINING, MIXED], 100).astype(np.uint8), np.zeros(200, np.int64)
    faces = Faces(np.empty((200, 0, 0), np.uint8), usage, usage, np.empty(200, "S1"), ("sad",), "", "x.csv")
    assert len(concat.sample_extra_rows(faces, labels, np.arange(100), ("sad",), 29, seed=0)) == 29


def test_the_sample_depends_on_the_seed_of_the_run(small_config: Config) -> None:
    def train_rows(seed: int) -> list[int]:
        cfg = small_config(*MIX, "data.mix.percent=30", f"seed={seed}", "split=official")
        rows: list[int] = make_data(resolve(cfg, RUN))[0].split.train.tolist()
        return rows

    assert train_rows(1) == train_rows(1)
    assert train_rows(1) != train_rows(2)


def test_a_small_second_source_adds_all_its_rows(small_config: Config) -> None:
    _, source = make_data(resolve(small_config(*MIX, "data.mix.source.training=1", "data.mix.percent=100"), RUN))
    assert source["mix"]["rows"] == dict.fromkeys(EMOTIONS, 1)


def test_mixed_images_take_the_shape_of_the_main_source(fer_csv: Path, extra: str) -> None:
    data = module("data/mix=path_list", "data.mix.percent=100", "labels=seven", "split=official")
    mixed = data.faces.usage == MIXED
    assert data.faces.images.shape[1:] == (48, 48)
    assert abs(data.faces.images[mixed].astype(int) - 76).max() <= 1  # 0.299 * 255
    assert data.faces.origin[mixed][0].decode() == "mix.csv line 2: extra/0.png"
    names = [data.faces.classes[label] for label in data.faces.labels[mixed]]
    assert names == ["sad", "happy"] * 30
    assert data.description()["mix"]["rows"] == {name: 3 if name in ("sad", "happy") else 0 for name in EMOTIONS}


def test_mixed_images_without_a_face_are_counted(fer_csv: Path, extra: str) -> None:
    data = module("data/mix=path_list", "detector@data.mix.source.detector=haar", "labels=seven", "split=official")
    assert "no face was found in 60 images, such as mix.csv line 2: extra/0.png: the central square is used" in (
        data.faces.notes
    )


def test_gray_faces_mixed_into_color_are_color(extra: str) -> None:
    main = ("data=path_list", "data.train=data/mix.csv", "data.val=null", "data.test=data/mix.csv", "data.size=32")
    data = module(*main, *MIX[:2], *TWO, "split=random_20")
    faces = data.faces.images[data.faces.usage == MIXED]
    assert faces.shape == (70, 32, 32, 3)
    assert (faces[..., :1] == faces).all()


def test_a_class_that_only_the_second_source_has_is_refused_unless_excluded(extra: str) -> None:
    main = ("data=path_list", "data.train=data/mix.csv", "data.val=null", "data.test=data/mix.csv", *MIX[:2])
    with pytest.raises(UserError, match=r"synthetic faces has the classes angry, .*mix.csv has only happy, sad\. "):
        module(*main, "labels=source", "split=random_20")
    data = module(*main, *TWO, "split=random_20")
    assert set(data.labels[data.faces.usage == MIXED]) == {NO_CLASS, 0, 1}


def test_classes_of_the_second_source_may_be_synonyms(extra: str) -> None:
    write("data/other.csv", ("extra/0.png", "Sadness"), ("extra/1.png", "JOY"))
    main = ("data=path_list", "data.train=data/mix.csv", "data.val=null", "data.test=data/mix.csv")
    more = ("data/mix=path_list", "data.mix.source.train=data/other.csv", "data.mix.percent=100")
    data = module(*main, *more, "labels=source", "split=random_20")
    assert data.classes == ("happy", "sad")
    names = [data.classes[label] for label in data.labels[data.faces.usage == MIXED]]
    assert names == ["sad", "happy"]


@pytest.mark.parametrize("percent", ["-1", "101", "many", "null"])
def test_an_invalid_percentage_is_refused(percent: str, small_config: Config) -> None:
    with pytest.raises(UserError, match=r"data.mix.percent=.*: expected 0 to 100"):
        make_data(resolve(small_config(*MIX, f"data.mix.percent={percent}"), RUN))


def test_the_digest_depends_on_both_sources(small_config: Config) -> None:
    digests = [
        make_data(resolve(small_config(*more), RUN))[0].faces.digest
        for more in ((), MIX, (*MIX, "data.seed=5"), (*MIX, "data.mix.source.seed=5"))
    ]
    assert len(set(digests)) == 4


@pytest.mark.parametrize("choice", options("data/mix"))
def test_choices_of_the_second_source_are_readers_with_their_arguments(choice: str) -> None:
    mix = compose("train", f"data/mix={choice}").data.mix
    assert set(mix) == {"percent", "source"}
    read = hydra.utils.get_object(mix.source._target_)
    assert set(mix.source) - {"_target_"} <= set(inspect.signature(read).parameters)


@pytest.mark.parametrize("choice", representative(options("data"), "auto"))
def test_any_source_accepts_a_second_one(choice: str) -> None:
    assert compose("train", f"data={choice}", "data/mix=synthetic").data.mix.percent == 20
    assert "mix" not in compose("train", f"data={choice}").data


def test_a_run_records_what_was_mixed_in_and_is_evaluated_and_resumed(small_config: Config) -> None:
    cfg = small_config(*MIX, "data.mix.percent=20", "trainer.max_epochs=1", "split=official", "batch_size=8")
    train(cfg, RUN)
    record = json.loads((RUN / "record.json").read_text())
    mix = record["data"]["mix"]
    assert (mix["source"], mix["percent"], mix["rows"]) == ("synthetic faces", 20, dict.fromkeys(EMOTIONS, 3))
    assert mix["share"] == pytest.approx(21 / (7 * 16 + 21))
    assert record["split"] == {"train": 133, "val": 28, "test": 28}
    assert load_checkpoint(RUN).data["mix"] == 20
    found = evaluate(compose("evaluate", f"checkpoint={RUN}", "subset=train", "accelerator=cpu"))
    assert (found["all"]["n"], found["deduplicated"]["n"]) == (133, 0)
    found = evaluate(compose("evaluate", f"checkpoint={RUN}", "accelerator=cpu"))
    assert found["all"] == record["scores"]["test"]["none"]["all"]
    cfg.resume, cfg.trainer.max_epochs = str(RUN), 2
    train(cfg, RUN)
    assert json.loads((RUN / "record.json").read_text())["epochs"] == 2


def test_runs_with_and_without_a_second_source_are_different_recipes_on_one_test_set(small_run: Run) -> None:
    short = ("trainer.max_epochs=1", "labels=seven", "split=official")
    small_run(Path("runs/alone"), *short)
    small_run(Path("runs/10"), *MIX, *short, "data.mix.percent=10")
    shutil.copytree("runs/10", "runs/20")
    record = json.loads(Path("runs/20/record.json").read_text())
    record["data"]["mix"]["percent"] = 20
    Path("runs/20/record.json").write_text(json.dumps(record))
    found = find_finished(["runs"])
    assert len({run.record.data["digest"] for run in found}) == 1
    assert len(group_by_recipe(found)) == 3


def test_overfit_uses_the_main_source_alone(small_config: Config) -> None:
    data, source = make_data(resolve(small_config(*MIX, "overfit=8"), RUN))
    assert (data.faces.usage[data.split.train] == TRAINING).all()
    assert source["mix"]["share"] == 0


def test_prepare_counts_mixed_rows(capsys: pytest.CaptureFixture[str]) -> None:
    few = ("data.training=2", "data.public_test=1", "data.private_test=1", "data.mix.source.training=5")
    prepare.run(compose("prepare", "data=synthetic", "data/mix=synthetic", *few))
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines() if "Mixed" in line] == ["35"]
