"""A run without optional callbacks, and what the model summary prints."""

from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from omegaconf import DictConfig

from emotion.callbacks.model_summary import print_once
from emotion.callbacks.progress_bar import EpochProgressBar
from emotion.config.compose import compose
from emotion.records.run_record import RunRecord
from emotion.train import train
from tests.conftest import SMALL

RUN = Path("run")
DATA = ("data=synthetic", "data.training=16", "data.public_test=4", "data.private_test=4", "trainer.max_epochs=1")


def test_a_run_without_callbacks_is_scored() -> None:
    train(compose("train", *(o for o in SMALL if o[0] != "~"), *DATA, "callbacks=none", "logger=csv"), RUN)
    record = RunRecord.read(RUN)
    assert record is not None
    assert record.scores
    assert [path.name for path in (RUN / "checkpoints").iterdir()] == ["best.ckpt"]


def test_the_summary_has_the_layers_of_the_network_alone(
    small_config: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    print_once.cache_clear()
    train(small_config("trainer.max_epochs=1", "logger=csv"), RUN)
    table = capsys.readouterr().out.partition("\nV4Attention\n")[2].partition("\n\n")[0]
    rows = [line.split() for line in table.splitlines()[2:]]
    assert ["features", "Sequential", "1,892"] in rows
    assert {name.split(".")[0] for name, _, _ in rows} == {"features", "head"}


def test_the_progress_bar_counts_epochs_from_1() -> None:
    bar = EpochProgressBar()
    bar._trainer = Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False)
    assert [bar._get_train_description(epoch).strip() for epoch in range(2)] == ["Epoch 1/2", "Epoch 2/2"]
