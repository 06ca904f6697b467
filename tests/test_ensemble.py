from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from emotion import checkpoints, ensemble, run_records
from emotion.errors import UserError
from emotion.train import train

Config = Callable[..., DictConfig]


@pytest.fixture
def runs(small_run: Callable[..., Path]) -> list[Path]:
    return [
        small_run(Path(name), "trainer.max_epochs=1", f"seed={seed}") for seed, name in enumerate(("first", "second"))
    ]


def test_an_ensembles_probabilities_are_its_members_mean(runs: list[Path]) -> None:
    pixels = torch.randint(0, 256, (4, 48, 48), dtype=torch.uint8)
    alone = [checkpoints.load(run).classifier.probabilities(pixels, "flip") for run in runs]
    together = ensemble.load([str(run) for run in runs]).probabilities(pixels, "flip")
    torch.testing.assert_close(together, (alone[0] + alone[1]) / 2)
    assert ensemble.load(runs[0]).probabilities(pixels, "flip").equal(alone[0])


def test_a_stored_temperature_divides_the_logits(runs: list[Path]) -> None:
    pixels = torch.randint(0, 256, (4, 48, 48), dtype=torch.uint8)
    (runs[0] / run_records.RECORD).unlink()  # which lists the checkpoint's digest
    checkpoints.set_temperature(runs[0] / checkpoints.BEST, 1.0)
    before = checkpoints.load(runs[0]).classifier.probabilities(pixels)
    checkpoints.set_temperature(runs[0] / checkpoints.BEST, 2.0)
    after = checkpoints.load(runs[0]).classifier.probabilities(pixels)
    torch.testing.assert_close(after, before.sqrt() / before.sqrt().sum(1, keepdim=True))


def test_members_of_other_classes_are_refused(runs: list[Path], small_config: Config) -> None:
    train(small_config("trainer.max_epochs=1", "labels=four"), Path("four"))
    with pytest.raises(UserError, match=r"four/checkpoints/best\.ckpt tells apart happy, neutral, sad, surprise; the"):
        ensemble.load([str(runs[0]), "four"])


def test_an_ensemble_is_where_it_was_moved_to(runs: list[Path]) -> None:
    assert ensemble.load(runs[0]).to("meta").device.type == "meta"
