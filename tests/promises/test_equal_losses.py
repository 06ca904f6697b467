"""Two runs with one seed have bit-equal losses, whatever random numbers are drawn before or between their steps."""

import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor

from emotion.config.compose import compose
from emotion.records.recipe import OBSERVERS
from emotion.training import setup
from tests.conftest import options
from tests.counted import Tally

STEPS = 100
FEW = (
    *("data=synthetic", "data.training=13", "data.public_test=2", "data.private_test=2", "batch_size=2"),
    *("input.size=32", "model.weights=random", "compile.cpu=false", "freeze_epochs=2", "trainer.accelerator=cpu"),
    *("trainer.max_epochs=4", f"trainer.limit_train_batches={STEPS // 4}", "trainer.limit_val_batches=1"),
)
"""Shrink a model's recipe to 4 epochs, in which schedules change and backbones unfreeze."""
SMALLER = {"timm_backbone": ["model.backbone=mobilenetv3_small_050"]}


class Losses(L.Callback):
    """Record the loss of every step; with `disturbs` also draw random numbers between steps."""

    def __init__(self, disturbs: bool) -> None:
        self.values: list[Tensor] = []
        self.disturbs = disturbs

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: dict[str, Tensor],
        batch: object,
        batch_idx: int,
    ) -> None:
        self.values.append(outputs["loss"].detach().clone())
        if self.disturbs:
            disturb()


def disturb() -> None:
    torch.rand(7)
    np.random.random(7)  # noqa: NPY002
    random.random()


def losses(model: str, folder: Path, *, disturbs: bool = False) -> list[float]:
    """Return the losses of the first `STEPS` steps of a run."""
    cfg = compose("train", f"model={model}", *FEW, *SMALLER.get(model, []))
    config = setup.resolve(cfg, folder)
    callbacks = {name: part for name, part in config.callbacks.items() if name not in OBSERVERS}
    config = replace(config, callbacks=callbacks, logger={})
    L.seed_everything(config.seed, verbose=False)
    data, _ = setup.make_data(config)
    classifier = setup.make_classifier(config, data)
    config = setup.resolve_precision(config, classifier)
    setup.optimize_for_device(classifier, config, may_compile=True)
    trainer = setup.make_trainer(config)
    recorder = Losses(disturbs)
    trainer.callbacks.append(recorder)  # type: ignore[attr-defined]
    trainer.fit(classifier, datamodule=data)
    return torch.stack(recorder.values).tolist()


@pytest.mark.hard
@pytest.mark.promise("losses")
@pytest.mark.parametrize("model", options("model"))
def test_two_runs_have_equal_losses(model: str, tally: Tally, tmp_path: Path) -> None:
    first = losses(model, tmp_path / "first")
    disturb()
    second = losses(model, tmp_path / "second", disturbs=True)
    compare(first, second, model, tally)


def compare(first: list[float], second: list[float], case: str, tally: Tally) -> None:
    assert len(first) == len(second) == STEPS
    assert len(set(first)) > STEPS / 2  # the network learns
    for step, (one, other) in enumerate(zip(first, second, strict=True)):
        with tally(f"{case}, step {step}"):
            assert one == other


@pytest.mark.hard
@pytest.mark.promise("losses")
@pytest.mark.parametrize("model", ["fast_cnn", "compact_cnn"])
def test_a_run_in_another_process_has_equal_losses(model: str, tally: Tally, tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        elsewhere = pool.submit(losses, model, tmp_path / "elsewhere").result()
    compare(losses(model, tmp_path / "here"), elsewhere, model, tally)
