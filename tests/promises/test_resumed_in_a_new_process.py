"""A run that is stopped at any moment and resumed in a new process equals an uninterrupted run."""

import json
from pathlib import Path

import pytest
from omegaconf import DictConfig

from emotion.classifier import EmotionClassifier
from emotion.config.compose import compose
from emotion.errors import Stopped
from emotion.train import train
from tests.conftest import SMALL, signal_at
from tests.counted import Tally
from tests.processes import start_verb
from tests.training.test_resume import content, differences, uninterrupted

FEW = [
    *("data=synthetic", "data.training=8", "data.public_test=2", "data.private_test=2", "labels=six"),
    *("split=random_20", "batch_size=4", "cache_dir=cache", "compile.cpu=false", "trainer.accelerator=cpu"),
    *("trainer.max_epochs=5", "~callbacks.tensorboard_pictures", "monitor.metric=val/acc", "monitor.mode=max"),
]
COUNTING = ["callbacks.early_stopping.patience=2", "+callbacks.early_stopping.min_delta=1"]
"""No epoch improves by that much, so the third is the last."""
MODELS = {
    "baseline_cnn": ["model=baseline_cnn", "callbacks=default", *COUNTING],
    "v4_attention": ["model=v4_attention", *SMALL[:5], *COUNTING],
    "resnet18": [
        "model=resnet18", "model.weights=random", "input=rgb48", "callbacks=transfer", "freeze_epochs=1",
        "ema_decay=0.9", *COUNTING,
    ],
}  # fmt: skip
MOMENTS = ("an epoch's end", "the first batch", "mid-epoch", "the last batch", "validation", "early stopping's count")


class Crash(BaseException):
    """Simulate a crash, after which nothing is written."""


def crash_at(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """Crash before the `batch`-th training batch."""
    step, calls = EmotionClassifier.training_step, [0]

    def counted(*args: object) -> object:
        calls[0] += 1
        if calls[0] == batch:
            raise Crash
        return step(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(EmotionClassifier, "training_step", counted)


def stop(moment: str, batches: int, validations: int, monkeypatch: pytest.MonkeyPatch) -> type[BaseException]:
    """Make a run stop at a moment and return the exception that ends it."""
    if moment == "an epoch's end":
        crash_at(monkeypatch, 2 * batches + 1)
        return Crash
    place = {
        "the first batch": ("training_step", 1),
        "mid-epoch": ("training_step", batches + batches // 2),
        "the last batch": ("training_step", batches),
        "validation": ("validation_step", validations + 1),
        "early stopping's count": ("training_step", 2 * batches + 3),  # after an epoch without improvement
    }
    signal_at(monkeypatch, *place[moment])
    return Stopped


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for the uninterrupted runs."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.hard
@pytest.mark.promise("resume")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("model", MODELS)
def test_all_tensors_and_metrics_are_equal(
    model: str, precision: str, runs: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg: DictConfig = compose("train", *FEW, *MODELS[model], f"trainer.precision={precision}")
    expected = uninterrupted(cfg, runs / f"{model} {precision}")
    record = json.loads((expected / "record.json").read_text())
    assert record["epochs"] == 3
    batches, validations = record["split"]["train"] // 4, -(-record["split"]["val"] // 16)
    for moment in MOMENTS:
        with tally(f"{model} {precision} {moment}"):
            run = Path(moment)
            with monkeypatch.context() as patch, pytest.raises(stop(moment, batches, validations, patch)):
                train(cfg, run)
            if moment == "early stopping's count":
                assert waited(run) == 1
            log = Path("log")
            assert start_verb("train", [f"resume={run}"], log).wait() == 0, log.read_text()[-1000:]
            for name in ("last", "best"):
                assert differences(content(expected, name), content(run, name)) == []
            assert (run / "metrics.csv").read_bytes() == (expected / "metrics.csv").read_bytes()
            assert json.loads((run / "record.json").read_text())["scores"] == record["scores"]


def waited(run: Path) -> int:
    """Return the epochs without improvement that early stopping has counted."""
    states: dict[str, dict[str, int]] = content(run)["callbacks"]  # type: ignore[assignment]
    return next(state["wait_count"] for name, state in states.items() if name.startswith("EarlyStopping"))
