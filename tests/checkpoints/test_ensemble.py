from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from emotion.checkpoints import ensemble
from emotion.checkpoints.load import load_checkpoint, set_temperature
from emotion.checkpoints.locate import BEST_CHECKPOINT
from emotion.errors import UserError
from emotion.records import run_record
from emotion.train import train

Config = Callable[..., DictConfig]


@pytest.fixture
def runs(small_run: Callable[..., Path]) -> list[Path]:
    return [
        small_run(Path(name), "trainer.max_epochs=1", f"seed={seed}") for seed, name in enumerate(("first", "second"))
    ]


def test_an_ensemble_averages_its_members(runs: list[Path]) -> None:
    pixels = torch.randint(0, 256, (4, 48, 48), dtype=torch.uint8)
    members = [load_checkpoint(run).classifier.probabilities(pixels, "flip") for run in runs]
    mean = ensemble.load_ensemble([str(run) for run in runs]).probabilities(pixels, "flip")
    torch.testing.assert_close(mean, (members[0] + members[1]) / 2)
    assert ensemble.load_ensemble(runs[0]).probabilities(pixels, "flip").equal(members[0])


def test_a_stored_temperature_divides_the_logits(runs: list[Path]) -> None:
    pixels = torch.randint(0, 256, (4, 48, 48), dtype=torch.uint8)
    (runs[0] / run_record.RECORD).unlink()  # lists the checkpoint's digest
    set_temperature(runs[0] / BEST_CHECKPOINT, 1.0)
    before = load_checkpoint(runs[0]).classifier.probabilities(pixels)
    set_temperature(runs[0] / BEST_CHECKPOINT, 2.0)
    after = load_checkpoint(runs[0]).classifier.probabilities(pixels)
    torch.testing.assert_close(after, before.sqrt() / before.sqrt().sum(1, keepdim=True))


def test_members_with_different_classes_are_refused(runs: list[Path], small_config: Config) -> None:
    train(small_config("trainer.max_epochs=1", "labels=four"), Path("four"))
    with pytest.raises(
        UserError,
        match=r"four/checkpoints/best\.ckpt was trained on the classes happy, neutral, sad, surprise, but first/.* "
        r"on happiness, .*\. An ensemble needs checkpoints of the same classes\.",
    ):
        ensemble.load_ensemble([str(runs[0]), "four"])


def test_an_ensemble_reports_the_device_it_was_moved_to(runs: list[Path]) -> None:
    assert ensemble.load_ensemble(runs[0]).to("meta").device.type == "meta"
