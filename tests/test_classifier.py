"""The classifier's schedules: their rates in a run, and the number of steps that they are made for."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from emotion.checkpoints.load import read_checkpoint
from emotion.checkpoints.locate import LAST_CHECKPOINT
from emotion.loggers.csv_logger import read_metrics
from emotion.train import train
from emotion.training.setup import make_classifier, make_data, make_trainer, resolve

Config = Callable[..., DictConfig]
RUN = Path("run")


def rates(*overrides: str, small_config: Config) -> list[float]:
    """Train, and return the rate of the last step of each epoch."""
    train(
        small_config("data.training=2", "logger=csv", "~callbacks.early_stopping", "optimizer.lr=0.01", *overrides), RUN
    )
    return [row["lr"] for row in read_metrics(RUN / "metrics.csv").values()]


def test_a_plateau_schedule_is_stepped_once_an_epoch(small_config: Config) -> None:
    """No score improves by 10: after the first epoch, every second one (patience 1) halves the rate, after its end."""
    never = ("scheduler.patience=1", "+scheduler.threshold=10", "+scheduler.threshold_mode=abs")
    found = rates("scheduler=plateau", *never, "trainer.max_epochs=6", small_config=small_config)
    assert found == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.005, 0.0025])


@pytest.mark.parametrize(("metric", "mode", "best"), [("train/loss", "min", min), ("val/acc", "max", max)])
def test_a_plateau_schedule_follows_the_monitored_metric(
    metric: str, mode: str, best: Callable[..., float], small_config: Config
) -> None:
    rates("scheduler=plateau", f"monitor={{metric:{metric},mode:{mode}}}", small_config=small_config)
    (state,) = read_checkpoint(RUN / LAST_CHECKPOINT).training_state["lr_schedulers"]
    values = [row[metric] for row in read_metrics(RUN / "metrics.csv").values()]
    assert float(state["best"]) == pytest.approx(best(values))
    assert state["last_epoch"] == len(values) == 2


def test_an_epochs_schedule_is_stepped_once_an_epoch(small_config: Config) -> None:
    settings = ("scheduler=step", "scheduler.step_size=2", "scheduler.gamma=0.1", "trainer.max_epochs=5")
    found = rates(*settings, small_config=small_config)
    assert found == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001])
    assert found[:2] == [0.01, 0.01]  # not rounded to float32


def test_a_steps_schedule_ends_with_the_last_accumulated_step(small_config: Config) -> None:
    """Six batches, four a step: two steps an epoch, four in all; a step of warm-up, then a third less after each."""
    settings = ("scheduler=linear", "scheduler.warmup=0", "batch_size=2", "trainer.accumulate_grad_batches=4")
    assert rates(*settings, "labels=seven", small_config=small_config) == pytest.approx([0.01, 0.01 / 3])


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        ((), 6 * 2),
        (("trainer.accumulate_grad_batches=4",), 2 * 2),
        (("trainer.accumulate_grad_batches=7",), 1 * 2),
        (("trainer.limit_train_batches=3",), 3 * 2),
        (("trainer.limit_train_batches=9", "trainer.max_epochs=3"), 6 * 3),
        (("trainer.limit_train_batches=0.5", "trainer.accumulate_grad_batches=2"), 2 * 2),
    ],
)
def test_total_steps_are_those_that_the_run_takes(overrides: tuple[str, ...], steps: int, small_config: Config) -> None:
    six = (
        "data.training=2",
        "labels=seven",
        "batch_size=2",
        "scheduler=one_cycle",
        "logger=csv",
        "trainer.precision=32-true",
    )
    config = resolve(small_config(*six, *overrides), RUN)
    RUN.mkdir()
    data, _ = make_data(config)
    classifier, trainer = make_classifier(config, data), make_trainer(config)
    classifier.trainer, trainer.datamodule = trainer, data  # type: ignore[attr-defined]
    optimizers = classifier.configure_optimizers()
    assert isinstance(optimizers, dict)
    assert optimizers["lr_scheduler"]["scheduler"].total_steps == steps  # type: ignore[index,union-attr]
    trainer.fit(classifier, datamodule=data)
    assert trainer.global_step == steps
