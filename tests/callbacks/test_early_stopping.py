"""Early stopping: a new patience when a run is resumed, and no end before the whole network is trained."""

from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from emotion.train import train
from tests.conftest import record_of

Config = Callable[..., DictConfig]
RUN = Path("run")
STUCK = ("optimizer.lr=0", "scheduler=none", "logger=csv")


def test_a_resumed_run_has_the_patience_of_its_settings(small_config: Config) -> None:
    train(small_config(*STUCK, "trainer.max_epochs=9", "callbacks.early_stopping.patience=1"), RUN)
    assert record_of(RUN).epochs == 2
    longer = ("trainer.max_epochs=10", "callbacks.early_stopping.patience=3", f"resume={RUN}")
    train(small_config(*STUCK, *longer), RUN)
    assert record_of(RUN).epochs == 4  # the best one and three others


def test_epochs_with_a_frozen_backbone_do_not_count(small_config: Config) -> None:
    staged = ("callbacks=transfer", "freeze_epochs=3", "patience=1", "trainer.max_epochs=9", "backbone_lr=0")
    train(small_config(*STUCK, *staged), RUN)
    assert record_of(RUN).epochs == 5
