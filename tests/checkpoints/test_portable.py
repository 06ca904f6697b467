import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from emotion.checkpoints import ensemble, portable
from emotion.checkpoints.load import load_checkpoint, read_checkpoint
from emotion.checkpoints.locate import zoo
from emotion.checkpoints.training_data import load_data
from emotion.config.compose import compose
from emotion.config.instantiate import instantiate
from emotion.errors import UserError
from emotion.evaluate import evaluate
from emotion.evaluation.score import predict_probabilities
from emotion.io import digests
from emotion.records import run_record
from emotion.train import train
from tests.pictures import FOUND

WEIGHTS, DESCRIPTION = Path("kept/x.safetensors"), Path("kept/x.json")


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    """Of the small V4 on six classes."""
    return small_run(Path("run"), "trainer.max_epochs=1")


@pytest.fixture
def kept(run: Path) -> Path:
    """The run's weights as they travel."""
    loaded = load_checkpoint(run)
    WEIGHTS.parent.mkdir()
    portable.write(WEIGHTS, DESCRIPTION, read_checkpoint(loaded.path), run_record.record_of_checkpoint(loaded))
    return WEIGHTS


def change(**told: object) -> None:
    digests.write_json(DESCRIPTION, json.loads(DESCRIPTION.read_text()) | told)


def test_weights_come_back_rounded_to_half_precision(run: Path, kept: Path) -> None:
    before, after = (load_checkpoint(source).classifier.state_dict() for source in (run, kept))
    assert before.keys() == after.keys()
    for name, value in before.items():
        exact = not value.is_floating_point() or "running_" in name
        assert after[name].equal(value if exact else value.half().float()), name


def test_the_record_travels_along(run: Path, kept: Path) -> None:
    before, after = (run_record.record_of_checkpoint(load_checkpoint(source)) for source in (run, kept))
    assert before is not None
    assert after is not None
    assert after["scores"] == before["scores"]


def test_shipped_weights_say_nearly_what_the_run_says(run: Path, kept: Path) -> None:
    pixels = torch.from_numpy(FOUND)
    before, after = (load_checkpoint(source).classifier.probabilities(pixels) for source in (run, kept))
    torch.testing.assert_close(before, after, atol=2e-3, rtol=0)


def test_scores_of_shipped_weights_do_not_lie_among_them(kept: Path) -> None:
    evaluate(compose("evaluate", f"checkpoint={kept}", "accelerator=cpu"), Path("scores"))
    assert sorted(path.name for path in kept.parent.iterdir()) == ["x.json", "x.safetensors"]
    assert Path("scores/x_random_test_none.json").is_file()


def test_a_network_begins_with_shipped_weights(kept: Path, small_config: Callable[..., DictConfig]) -> None:
    train(small_config(f"model.weights={kept}", "trainer.max_epochs=1"), Path("again"))
    record = run_record.read_record(Path("again"))
    assert record is not None
    assert not record["weights"]["drawn"]


def test_no_place_on_this_machine_travels(tmp_path: Path, kept: Path) -> None:
    assert str(tmp_path) not in DESCRIPTION.read_text()
    told = {"path": "/home/someone/data/fer2013.csv", "command": "python -m emotion.train data_dir=/home/someone/data"}
    expected = {"path": "fer2013.csv", "command": "python -m emotion.train data_dir=data"}
    assert portable.without_absolute_paths(told) == expected
    assert portable.without_absolute_paths(["a/b", "1 / 2", 3, None]) == ["a/b", "1 / 2", 3, None]


OUTSIDE = {
    "another package": "os.system",
    "a writer of ours": "emotion.io.atomic.write_text",
    "a way round": "torch.nn.functional.torch.load",
    "a loader": "lightning.pytorch.LightningModule.load_from_checkpoint",
    "nothing": "emotion.models.nothing.Nothing",
}


@pytest.mark.parametrize("target", OUTSIDE.values(), ids=OUTSIDE.keys())
def test_no_config_reaches_what_is_no_part(target: str) -> None:
    with pytest.raises(UserError, match=r"is not allowed|does not exist"):
        instantiate({"_target_": target})


@pytest.mark.parametrize("target", [*OUTSIDE.values(), "emotion.data.cache.prepare", "torch.nn.Linear"])
def test_a_description_names_only_what_conf_names(target: str, kept: Path) -> None:
    told = json.loads(DESCRIPTION.read_text())
    change(hyper_parameters=told["hyper_parameters"] | {"loss": {"_target_": target}})
    with pytest.raises(UserError, match=f"x.json names {target}, which is no part of this package; not loaded"):
        load_checkpoint(kept)


def test_damaged_or_missing_files_are_refused(kept: Path) -> None:
    change(format="emotion 9")
    with pytest.raises(UserError, match=r"found format 'emotion 9', expected 'emotion 1'"):
        load_checkpoint(kept)
    DESCRIPTION.write_text("{")
    with pytest.raises(UserError, match=r"x.json cannot be read as JSON .*Is it whole"):
        load_checkpoint(kept)
    DESCRIPTION.unlink()
    with pytest.raises(UserError, match=r"has neither x.json nor config.json beside it"):
        load_checkpoint(kept)


def test_weights_cut_short_are_refused(kept: Path) -> None:
    kept.write_bytes(kept.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"x.safetensors is not what kept/x.json describes: damaged"):
        load_checkpoint(kept)


@pytest.mark.parametrize("name", zoo())
def test_weights_that_come_with_the_package_are_small_and_whole(name: str) -> None:
    assert zoo()[name].stat().st_size <= 12_000_000
    loaded = load_checkpoint(name)
    record = run_record.record_of_checkpoint(loaded)
    assert record is not None
    assert record["scores"]
    assert not record["data"]["stand_in"]
    assert "+" not in record["commit"]
    assert record["parameters"] == sum(parameter.numel() for parameter in loaded.classifier.net.parameters())
    pixels = torch.randint(0, 256, (5, 48, 48), dtype=torch.uint8)
    torch.testing.assert_close(loaded.classifier.probabilities(pixels).sum(1), torch.ones(5))


@pytest.mark.fer2013
@pytest.mark.parametrize("name", zoo())
def test_a_thousand_test_faces_agree_with_their_record(name: str, fer2013: Path) -> None:
    record = run_record.record_of_checkpoint(load_checkpoint(name))
    assert record is not None
    judge = ensemble.load_ensemble(name)
    cache = os.environ["EMOTION_CACHE"]
    data = load_data(judge.loaded[0], {"cache_dir": cache, "data_dir": str(fer2013.parent)})
    rows = np.random.default_rng(0).permutation(data.split.test)[:1000]
    found = predict_probabilities(judge, data.faces.images, rows).argmax(1).numpy() == data.labels[rows]
    expected = record["scores"]["test"]["none"]["all"]["accuracy"][0]
    assert found.mean() == pytest.approx(expected, abs=0.045)  # three standard errors of a thousand
