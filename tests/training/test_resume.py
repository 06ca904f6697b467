"""A run that was stopped and resumed is the run that was never stopped."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from emotion.config.instantiate import build
from emotion.errors import Stopped
from emotion.train import train
from tests.conftest import made_votes, signal_at, write_votes

Config = Callable[..., DictConfig]


def content(run: Path, name: str = "last") -> dict[str, object]:
    checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    for state in checkpoint.get("callbacks", {}).values():  # the best one holds none
        for name in ("dirpath", "best_model_path", "best_k_models", "kth_best_model_path", "last_model_path",
                     "time_elapsed", "seconds"):  # fmt: skip
            state.pop(name, None)  # where it lies and how long it took
    return checkpoint


def differences(left: object, right: object, path: str = "") -> list[str]:
    """Places at which two checkpoints differ, tensors compared bit by bit."""
    if isinstance(left, dict) and isinstance(right, dict):
        keys = sorted({*left, *right}, key=str)
        return [d for k in keys for d in differences(left.get(k), right.get(k), f"{path}/{k}")]
    if isinstance(left, list | tuple) and isinstance(right, list | tuple) and len(left) == len(right):
        return [d for i, (a, b) in enumerate(zip(left, right, strict=True)) for d in differences(a, b, f"{path}/{i}")]
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return [] if torch.equal(left, right) else [path]
    return [] if left == right else [f"{path}: {left} != {right}"]


RECIPES = {
    "plateau": ["scheduler=plateau", "scheduler.patience=0", "callbacks.early_stopping.patience=1"],
    "taught": ["mixup=either", "distillation={teacher:elder,temperature:4.0,weight:0.5}"],
    "staged": [
        "callbacks=transfer",
        "freeze_epochs=1",
        "callbacks.ema.decay=0.9",
        "scheduler=staged_cosine",
        "mixup=mixup",
        "backbone_lr=1e-4",
        "layer_decay=0.9",
        "trainer.gradient_clip_val=1.0",
    ],
    "accumulated": ["callbacks=transfer", "freeze_epochs=1", "ema_decay=0.9", "trainer.accumulate_grad_batches=2"],
    "champion": ["callbacks=averaged", "ema_decay=0.9", "optimizer=muon", "scheduler=linear", "augment=warped"],
    "voted": ["target=sampled", "mixup=mixup", "loss.balanced=true", "scheduler=cosine_restarts", "scheduler.T_0=1"],
    "one_cycle": ["scheduler=one_cycle", "optimizer=sgd", "sampler=weighted", "loss=focal"],
}
MOMENTS = {
    "first batch": ("training_step", 1),
    "middle of an epoch": ("training_step", 8),
    "last batch of an epoch": ("training_step", 10),
    "inside validation": ("validation_step", 2),
    "second epoch's validation": ("validation_step", 4),
}
USUAL = "middle of an epoch"
"""Where a signal meets most runs; the other moments are tried by make test-hard."""


@pytest.fixture(scope="module")
def kept_straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the uninterrupted runs lie, one of each recipe and batch size."""
    return tmp_path_factory.mktemp("straight")


def uninterrupted(cfg: DictConfig, kept: Path) -> Path:
    if not kept.exists():
        train(cfg, Path("straight"))
        shutil.copytree("straight", kept)
    return kept


@pytest.mark.parametrize(
    "moment", [name if name == USUAL else pytest.param(name, marks=pytest.mark.hard) for name in MOMENTS]
)
@pytest.mark.parametrize("recipe", RECIPES)
def test_resumed_run_equals_uninterrupted_run(
    recipe: str,
    moment: str,
    small_config: Config,
    small_run: Callable[..., Path],
    kept_straight: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cfg = small_config("trainer.max_epochs=4", "data.training=20", *RECIPES[recipe])  # 6 batches, validation in 1
    cfg.batch_size = 16 if "validation" not in moment else 4
    cfg.cache_dir = "cache"
    if cfg.target == "sampled":
        faces = list(build(OmegaConf.to_container(cfg.data)).rows)
        votes = Path("votes.csv")
        write_votes(votes, np.concatenate([made_votes(f) for f in faces]), np.concatenate([f.usage for f in faces]))
        cfg.data = {"_target_": "emotion.data.readers.ferplus.read", "source": cfg.data, "votes": str(votes)}
    if cfg.distillation:
        small_run(Path(cfg.distillation.teacher), "input=rgb64", "trainer.max_epochs=1")
    straight, stopped = uninterrupted(cfg, kept_straight / f"{recipe} {cfg.batch_size}"), Path("stopped")
    with monkeypatch.context() as patch:
        signal_at(patch, *MOMENTS[moment])
        with pytest.raises(Stopped):
            train(cfg, stopped)
    resumed = cfg.copy()
    resumed.resume = str(stopped)
    train(resumed, stopped)
    for name in ("last", "best"):
        assert differences(content(straight, name), content(stopped, name)) == []
    records = [json.loads((run / "record.json").read_text()) for run in (straight, stopped)]
    assert records[0]["calibration"] == records[1]["calibration"]
    assert records[0]["scores"] == records[1]["scores"]
    assert (stopped / "metrics.csv").read_text() == (straight / "metrics.csv").read_text()
