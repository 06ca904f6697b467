"""The moving average: its value, and when it replaces the weights."""

from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from emotion.callbacks.ema import ExponentialMovingAverage
from emotion.checkpoints.load import load_checkpoint, read_checkpoint
from emotion.checkpoints.locate import LAST_CHECKPOINT
from emotion.classifier import EmotionClassifier
from emotion.errors import UserError
from emotion.loggers.csv_logger import read_metrics
from emotion.train import train
from tests.callbacks.test_staged_unfreezing import initial_state, state, transfer
from tests.conftest import record_of

RUN = Path("run")


class Recorder(ExponentialMovingAverage):
    """Also record the weights after each step."""

    __module__ = ExponentialMovingAverage.__module__  # a module that configs may use
    recorded: list[dict[str, Tensor]] = []  # noqa: RUF012

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        assert isinstance(pl_module, EmotionClassifier)
        self.recorded.append({name: value.clone() for name, value in pl_module.net.state_dict().items()})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with EMA; Recorder.recorded has the raw weights after each step."""
    folder = tmp_path_factory.mktemp("ema") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emotion.callbacks.ema.ExponentialMovingAverage", Recorder)
        patch.setenv("EMOTION_CACHE", str(folder.parent / "cache"))
        Recorder.recorded = []
        train(transfer("freeze_epochs=1", "trainer.max_epochs=2"), folder)
    return folder


def test_the_average_follows_the_recurrence_over_all_steps(run: Path) -> None:
    average = {
        name.removeprefix("net."): value for name, value in initial_state(transfer()).items() if name.startswith("net.")
    }
    assert len(Recorder.recorded) == 14  # two epochs of 7 batches
    for step in Recorder.recorded:
        average = {
            name: 0.9 * average[name] + 0.1 * value if value.is_floating_point() else value
            for name, value in step.items()
        }
    saved = state(run)
    for name, value in average.items():
        torch.testing.assert_close(saved[f"net.{name}"], value, atol=1e-5, rtol=1e-4)


def test_a_checkpoint_also_has_the_raw_weights(run: Path) -> None:
    raw = read_checkpoint(run / LAST_CHECKPOINT).training_state["raw_weights"]
    assert all(raw[f"net.{name}"].equal(value) for name, value in Recorder.recorded[-1].items())


def test_validation_and_the_best_checkpoint_use_the_average(run: Path) -> None:
    """The recorded score of the best epoch is that of the average, which the best checkpoint has."""
    from emotion.checkpoints import ensemble
    from emotion.evaluation.score import score_rows
    from emotion.training.config import TrainConfig
    from emotion.training.setup import make_data

    config = TrainConfig.from_dict(record_of(run).config)
    loaded = load_checkpoint(run)
    if loaded.epoch == 1:
        assert all(state(run, "best")[name].equal(value) for name, value in state(run).items())
    data, _ = make_data(config)
    scores = score_rows(
        ensemble.load_ensemble(run), data.faces.images, data.labels, data.split.val, data.split.train[:0],
        precision=config.trainer["precision"],
    )["none"].scores["all"]  # fmt: skip
    rows = read_metrics(run / "metrics.csv")
    assert scores["macro_f1"][0] == pytest.approx(rows[loaded.epoch + 1]["val/macro_f1"], abs=1e-6)


def test_without_ema_a_checkpoint_has_no_raw_weights() -> None:
    train(transfer("~callbacks.ema", "freeze_epochs=1", "trainer.max_epochs=1"), RUN)
    assert "raw_weights" not in read_checkpoint(RUN / LAST_CHECKPOINT).training_state


def test_ema_added_on_resuming_starts_from_the_weights() -> None:
    train(transfer("~callbacks.ema", "scheduler=none", "freeze_epochs=1", "trainer.max_epochs=1"), RUN)
    cfg = transfer(
        "scheduler=none", "freeze_epochs=1", "trainer.max_epochs=2", f"resume={RUN}", "callbacks.ema.decay=1.0"
    )
    before = state(RUN)
    train(cfg, RUN)
    after = state(RUN)
    names = [name for name in before if name.startswith("net.") and before[name].is_floating_point()]
    assert all(after[name].equal(before[name]) for name in names)


@pytest.mark.parametrize("decay", [-0.1, 2, "abc"])
def test_an_invalid_decay_is_refused(decay: object) -> None:
    with pytest.raises(UserError, match="expected a number from 0 to 1"):
        ExponentialMovingAverage(decay)  # type: ignore[arg-type]
    assert [ExponentialMovingAverage(limit).decay for limit in (0, 1)] == [0, 1]


def test_a_loaded_average_waits_for_the_next_step(run: Path) -> None:
    """A checkpoint of step 14: nothing is averaged at that step, as by a signal before the next batch."""
    checkpoint = torch.load(run / LAST_CHECKPOINT, weights_only=True)
    classifier = EmotionClassifier.load_from_checkpoint(run / LAST_CHECKPOINT)
    trainer, ema = L.Trainer(accelerator="cpu", logger=False), ExponentialMovingAverage(0.5)
    trainer.state.fn = TrainerFn.FITTING
    ema.on_load_checkpoint(trainer, classifier, checkpoint)
    ema.on_fit_start(trainer, classifier)
    average = [value.clone() for value in ema.stored]
    names = [f"net.{name}" for name in classifier.net.state_dict()]
    assert all(value.equal(checkpoint["state_dict"][name]) for name, value in zip(names, average, strict=True))
    assert all(
        ema.raw_weights(classifier)[name.removeprefix("net.")].equal(checkpoint["raw_weights"][name]) for name in names
    )
    steps = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
    for step, moves in ((14, False), (15, True), (15, False)):
        steps.completed, before = step, [value.clone() for value in ema.stored]
        ema.on_train_batch_end(trainer, classifier, None, None, 0)
        assert (ema.last_step, any(not a.equal(b) for a, b in zip(ema.stored, before, strict=True))) == (step, moves)
