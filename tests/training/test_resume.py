"""A run that was stopped and resumed equals a run that was never stopped."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from emotion.config.instantiate import instantiate
from emotion.errors import Stopped
from emotion.train import train
from tests.conftest import made_votes, representative, signal_at, write_votes

Config = Callable[..., DictConfig]


def content(run: Path, name: str = "last") -> dict[str, object]:
    checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    for state in checkpoint.get("callbacks", {}).values():  # the best checkpoint has none
        for name in ("dirpath", "best_model_path", "best_k_models", "kth_best_model_path", "last_model_path",
                     "time_elapsed", "seconds"):  # fmt: skip
            state.pop(name, None)  # the folder, and how long it took
    return checkpoint


def differences(left: object, right: object, path: str = "") -> list[str]:
    """Paths of the entries in which two checkpoints differ; tensors are compared bit by bit."""
    if isinstance(left, dict) and isinstance(right, dict):
        keys = sorted({*left, *right}, key=str)
        return [d for k in keys for d in differences(left.get(k), right.get(k), f"{path}/{k}")]
    if isinstance(left, list | tuple) and isinstance(right, list | tuple) and len(left) == len(right):
        return [d for i, (a, b) in enumerate(zip(left, right, strict=True)) for d in differences(a, b, f"{path}/{i}")]
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return [] if torch.equal(left, right) else [path]
    return [] if left == right else [f"{path}: {left} != {right}"]


RECIPES = {
    "plateau": [
        "scheduler=plateau",
        "scheduler.patience=0",
        "callbacks.early_stopping.patience=1",
        "mixup=either",
        "distillation={teacher:teacher,temperature:4.0,weight:0.5}",
    ],
    "staged": [
        "callbacks=transfer",
        "freeze_epochs=1",
        "callbacks.ema.decay=0.9",
        "scheduler=staged_cosine",
        "mixup=mixup",
        "backbone_lr=1e-4",
        "layer_decay=0.9",
        "trainer.gradient_clip_val=1.0",
        "trainer.accumulate_grad_batches=2",
    ],
    "averaged": [
        "callbacks=[no_early_stopping,ema]",
        "ema_decay=0.9",
        "optimizer=muon",
        "scheduler=linear",
        "augment=warped",
    ],
    "voted": ["target=sampled", "mixup=mixup", "loss.balanced=true", "scheduler=cosine_restarts", "scheduler.T_0=1"],
    "one_cycle": ["scheduler=one_cycle", "optimizer=sgd", "sampler=weighted", "loss=focal"],
}
MOMENTS = {
    "first batch": ("training_step", 1),
    "middle of an epoch": ("training_step", 8),
    "last batch of an epoch": ("training_step", 12),
    "inside validation": ("validation_step", 2),
    "second epoch's validation": ("validation_step", 4),
}
USUAL = "middle of an epoch"
"""The moment at which most signals arrive; make test-hard tests the others."""


@pytest.fixture(scope="module")
def uninterrupted_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the uninterrupted runs, one per recipe and batch size."""
    return tmp_path_factory.mktemp("straight")


def uninterrupted(cfg: DictConfig, folder: Path) -> Path:
    if not folder.exists():
        train(cfg, Path("straight"))
        shutil.copytree("straight", folder)
    return folder


@pytest.mark.parametrize(
    "moment", [name if name == USUAL else pytest.param(name, marks=pytest.mark.hard) for name in MOMENTS]
)
@pytest.mark.parametrize("recipe", representative(list(RECIPES), "plateau", "averaged"))
def test_resumed_run_equals_uninterrupted_run(
    recipe: str,
    moment: str,
    small_config: Config,
    small_run: Callable[..., Path],
    uninterrupted_runs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cfg = small_config("trainer.max_epochs=3", "data.training=20", "logger=csv", *RECIPES[recipe])
    cfg.batch_size = 16 if "validation" not in moment else 4  # 6 batches per epoch, validation in 1; or 24 in 6
    cfg.cache_dir = str(uninterrupted_runs / "cache")
    if cfg.target == "sampled":
        faces = list(instantiate(OmegaConf.to_container(cfg.data)).chunks)
        votes = Path("votes.csv")
        write_votes(votes, np.concatenate([made_votes(f) for f in faces]), np.concatenate([f.usage for f in faces]))
        cfg.data = {"_target_": "emotion.data.readers.ferplus.read", "source": cfg.data, "votes": str(votes)}
    if cfg.distillation:
        small_run(Path(cfg.distillation.teacher), "input=rgb64", "trainer.max_epochs=1", "tta=none")
    straight, stopped = uninterrupted(cfg, uninterrupted_runs / f"{recipe} {cfg.batch_size}"), Path("stopped")
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
