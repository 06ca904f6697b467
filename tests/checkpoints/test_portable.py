import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from emotion.checkpoints import ensemble, portable
from emotion.checkpoints.load import load_checkpoint, read_checkpoint
from emotion.checkpoints.locate import ONNX_SUFFIX, zoo
from emotion.checkpoints.training_data import load_data
from emotion.config.compose import compose
from emotion.config.instantiate import instantiate
from emotion.errors import UserError
from emotion.evaluate import evaluate
from emotion.evaluation.score import predict_probabilities
from emotion.io.atomic import write_json
from emotion.records import run_record
from emotion.train import train
from tests.conftest import record_of
from tests.images import FACES

WEIGHTS, DESCRIPTION = Path("exported/x.safetensors"), Path("exported/x.json")


@pytest.fixture
def run(small_run: Callable[..., Path]) -> Path:
    """Train the small V4 on six classes."""
    return small_run(Path("run"), "trainer.max_epochs=1")


@pytest.fixture
def exported(run: Path) -> Path:
    """Export the weights of the run."""
    loaded = load_checkpoint(run)
    WEIGHTS.parent.mkdir()
    portable.write(WEIGHTS, DESCRIPTION, read_checkpoint(loaded.path), record_of(run).to_dict())
    return WEIGHTS


def change(**entries: object) -> None:
    write_json(DESCRIPTION, json.loads(DESCRIPTION.read_text()) | entries)


def test_weights_are_rounded_to_half_precision(run: Path, exported: Path) -> None:
    before, after = (load_checkpoint(source).classifier.state_dict() for source in (run, exported))
    assert before.keys() == after.keys()
    for name, value in before.items():
        exact = not value.is_floating_point() or "running_" in name
        assert after[name].equal(value if exact else value.half().float()), name


def test_the_record_is_included(run: Path, exported: Path) -> None:
    before, after = (run_record.record_of_checkpoint(load_checkpoint(source)) for source in (run, exported))
    assert before is not None
    assert after is not None
    assert after.scores == before.scores


def test_probabilities_stay_nearly_the_same(run: Path, exported: Path) -> None:
    pixels = torch.from_numpy(FACES)
    before, after = (load_checkpoint(source).classifier.probabilities(pixels) for source in (run, exported))
    torch.testing.assert_close(before, after, atol=2e-3, rtol=0)


def test_evaluation_writes_no_files_next_to_the_weights(exported: Path) -> None:
    evaluate(compose("evaluate", f"checkpoint={exported}", "accelerator=cpu"), Path("scores"))
    assert sorted(path.name for path in exported.parent.iterdir()) == ["x.json", "x.safetensors"]
    assert Path("scores/x_random_test_none.json").is_file()


def test_training_starts_from_portable_weights(exported: Path, small_config: Callable[..., DictConfig]) -> None:
    train(small_config(f"model.weights={exported}", "trainer.max_epochs=1"), Path("again"))
    assert not record_of(Path("again")).weights["initialized"]


def test_absolute_paths_are_not_exported(tmp_path: Path, exported: Path) -> None:
    assert str(tmp_path) not in DESCRIPTION.read_text()
    settings = {"path": "/home/someone/data/fer2013.csv", "uri": "sqlite:////home/someone/mlflow.db"}
    assert portable.without_absolute_paths(settings) == {"path": "fer2013.csv", "uri": "sqlite:///mlflow.db"}
    kept = ["a/b", "1 / 2", 3, None, "it's a/b /c", "http://host:5000/a/b", "sqlite:///outputs/mlflow.db"]
    assert portable.without_absolute_paths(kept) == kept


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("data_dir=/home/me/data", "data_dir=data"),
        ("'runs=[/home/me/a,/home/me/b]'", "'runs=[a,b]'"),
        ("'hydra.searchpath=[file:///home/me/mine]'", "'hydra.searchpath=[file://mine]'"),
        ("'hydra.searchpath=[file://mine]'", "'hydra.searchpath=[file://mine]'"),
        ("model.weights=https://host/a/b.pth", "model.weights=https://host/a/b.pth"),
        ("study.storage=sqlite:////home/me/a.db", "study.storage=sqlite:///a.db"),
        ("logger.uri=sqlite:///outputs/mlflow.db", "logger.uri=sqlite:///outputs/mlflow.db"),
    ],
)
def test_the_exported_command_can_be_repeated(given: str, expected: str) -> None:
    command = portable.without_absolute_paths({"command": f"python -m emotion.train {given}"})["command"]
    assert command == f"python -m emotion.train {expected}"


def test_names_of_classes_stay_as_they_are() -> None:
    names = ["驚き / 恐れ", "content (smiling) / joyful", "it's sad / angry", "/s/ sound", "/"]
    settings = {"classes": names, "labels": {name: [name] for name in names}}
    assert portable.without_absolute_paths({"parts": [settings]}) == {"parts": [settings]}


OUTSIDE = {
    "another package": "os.system",
    "a writer of this package": "emotion.io.atomic.write_text",
    "an indirect name": "torch.nn.functional.torch.load",
    "a loader": "lightning.pytorch.LightningModule.load_from_checkpoint",
    "a missing module": "emotion.models.nothing.Nothing",
}


@pytest.mark.parametrize("target", OUTSIDE.values(), ids=OUTSIDE.keys())
def test_a_config_cannot_instantiate_other_code(target: str) -> None:
    with pytest.raises(UserError, match=r"is not allowed|has no nothing"):
        instantiate({"_target_": target})


@pytest.mark.parametrize("target", [*OUTSIDE.values(), "emotion.data.cache.prepare", "torch.nn.Linear"])
def test_a_description_may_only_name_targets_of_conf(target: str, exported: Path) -> None:
    entries = json.loads(DESCRIPTION.read_text())
    change(hyper_parameters=entries["hyper_parameters"] | {"model": {"_target_": target}})
    with pytest.raises(UserError, match=f"x.json names {target}, which is not part of this package; not loaded"):
        load_checkpoint(exported)


def test_damaged_or_missing_files_are_refused(exported: Path) -> None:
    change(format="emotion 9")
    with pytest.raises(UserError, match=r"found format 'emotion 9', expected 'emotion 1'"):
        load_checkpoint(exported)
    DESCRIPTION.write_text("{")
    with pytest.raises(UserError, match=r"x.json cannot be read as JSON: "):
        load_checkpoint(exported)
    DESCRIPTION.unlink()
    with pytest.raises(UserError, match=r"has neither x.json nor config.json next to it"):
        load_checkpoint(exported)


def test_truncated_weights_are_refused(exported: Path) -> None:
    exported.write_bytes(exported.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"x.safetensors does not match the SHA-256 in exported/x.json: it is damaged"):
        load_checkpoint(exported)


@pytest.mark.parametrize("name", zoo())
def test_the_weights_of_the_package_are_small_and_valid(name: str) -> None:
    assert zoo()[name].stat().st_size <= 12_000_000
    assert zoo(ONNX_SUFFIX)[name].stat().st_size <= 100_000  # its weights are those of the .safetensors file
    loaded = load_checkpoint(name)
    record = run_record.record_of_checkpoint(loaded)
    assert record is not None
    assert record.scores
    assert not record.is_synthetic
    assert "+" not in record.commit
    assert record.parameters == sum(parameter.numel() for parameter in loaded.classifier.net.parameters())
    pixels = torch.randint(0, 256, (5, 48, 48), dtype=torch.uint8)
    torch.testing.assert_close(loaded.classifier.probabilities(pixels).sum(1), torch.ones(5))


@pytest.mark.fer2013
@pytest.mark.parametrize("name", zoo())
def test_the_accuracy_on_a_thousand_test_faces_agrees_with_the_record(name: str, fer2013: Path) -> None:
    record = run_record.record_of_checkpoint(load_checkpoint(name))
    assert record is not None
    classifier = ensemble.load_ensemble(name)
    data = load_data(classifier.loaded[0], compose("export", f"data_dir={fer2013.parent}"))
    rows = np.random.default_rng(0).permutation(data.split.test)[:1000]
    correct = predict_probabilities(classifier, data.faces.images, rows).argmax(1).numpy() == data.labels[rows]
    expected = record.test_scores["none"]["all"]["accuracy"][0]
    assert correct.mean() == pytest.approx(expected, abs=0.045)  # three standard errors of a thousand
