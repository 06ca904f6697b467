"""Several processes give the results of one: every face is scored once, with the same metrics and one record."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from emotion.checkpoints.load import load_checkpoint, read_checkpoint
from emotion.checkpoints.locate import BEST_CHECKPOINT, LAST_CHECKPOINT
from emotion.config.compose import compose
from emotion.config.instantiate import instantiate
from emotion.data.dataloader import RowBatch, RowLoader
from emotion.errors import UserError
from emotion.runtime.distributed import blocks, is_replicated
from emotion.train import train
from emotion.training import setup
from emotion.training.config import TrainConfig

Config = Callable[..., DictConfig]

FIXED = [
    "model=simple_cnn", "model.dropout=0", "augment=none", "callbacks=default", "compile.cpu=false", "batch_size=4",
    "data=synthetic", "data.training=16", "data.public_test=23", "data.private_test=3",
    "trainer.accelerator=cpu", "trainer.precision=32-true",
]  # fmt: skip
"""A network without batch statistics, which a learning rate of 0 does not change. The 161 validation faces in batches
of 16 give the first of two processes 81 faces and the second 80, one batch less if they were not evened out."""


@pytest.fixture(autouse=True)
def reset_rank() -> Iterator[None]:
    """Reset the rank, which the trainer of a second Slurm task changes for all later tests."""
    yield
    rank_zero_only.rank = 0


SEVERAL = {
    "ddp": ["trainer=ddp", "trainer.devices=2"],
    "fsdp": ["trainer=fsdp", "trainer.devices=2"],
    "two nodes": ["trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2"],
}


def slurm_variables(task: int, tasks: int = 2, nodes: int = 2) -> dict[str, str]:
    """Return the environment variables that srun sets for a task."""
    tasks_per_node = tasks // nodes
    numbers = {
        "JOB_ID": 20000 + os.getpid() % 9000, "NTASKS": tasks, "NTASKS_PER_NODE": tasks_per_node, "NNODES": nodes,
        "PROCID": task, "LOCALID": task % tasks_per_node, "NODEID": task // tasks_per_node,
    }  # fmt: skip
    return {"SLURM_NODELIST": "127.0.0.1"} | {f"SLURM_{name}": str(number) for name, number in numbers.items()}


def start(*arguments: str, environment: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "emotion.train", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}), start_new_session=True,
    )  # fmt: skip


def wait(child: "subprocess.Popen[str]", seconds: float = 120) -> tuple[str, str]:
    """Return the output and errors; kill a process that hangs with its children."""
    try:
        return child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        raise


def keys(value: object) -> object:
    return {key: keys(inner) for key, inner in value.items()} if isinstance(value, dict) else None


def files(run: Path) -> set[Path]:
    paths = {path.relative_to(run) for path in run.rglob("*") if path.is_file() and not path.name.startswith("events")}
    return {path for path in paths if not str(path).startswith(".")}  # Hydra's files and the lock


def record(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "record.json").read_text())
    return content


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def single_process_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a trained run, and a run of one process that continues it for two epochs without changes."""
    folder = tmp_path_factory.mktemp("runs")
    trained, run = folder / "trained", folder / "one"
    own = [f"cache_dir={folder / 'cache'}", "logger=default"]
    train(compose("train", *FIXED, *own, "trainer.max_epochs=3"), trained)
    train(compose("train", *FIXED, *own, *without_changes(trained)), run)
    return trained, run


def without_changes(trained: Path) -> list[str]:
    pictures = "~callbacks.tensorboard_pictures"  # slow
    return [f"model.weights={trained}", "optimizer.lr=0", "trainer.max_epochs=2", pictures]


@pytest.mark.parametrize(
    "how", [name if name == "ddp" else pytest.param(name, marks=pytest.mark.hard) for name in SEVERAL]
)
def test_two_processes_score_every_face_once_and_write_once(how: str, single_process_runs: tuple[Path, Path]) -> None:
    trained, one = single_process_runs
    two = Path("two")
    command = [*FIXED, *without_changes(trained), *SEVERAL[how], f"hydra.run.dir={two}"]
    tasks = [slurm_variables(task) for task in range(2)] if how == "two nodes" else [{}]
    children = [start(*command, environment=task) for task in tasks]
    output, errors = map("".join, zip(*map(wait, children), strict=True))
    assert [child.returncode for child in children] == [0] * len(children), errors
    assert output.count("scores, figures and checkpoints: two\n") == 1
    assert len(re.findall(r"optimizer step: 4 faces x 2 processes on . nodes? = 8; learning rate 0,", output)) == 1
    assert files(two) == files(one)
    board = EventAccumulator("two/tensorboard").Reload()
    assert [len(board.Scalars(f"{name}/{part}")) for part in ("train", "val") for name in ("loss", "acc")] == [2] * 4

    assert [row["epoch"] for row in metrics(two)] == ["1", "2"]
    for row, expected in zip(metrics(two), metrics(one), strict=True):
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            if name.endswith("/loss"):
                assert float(row[name]) == pytest.approx(float(value), rel=1e-5)
            else:
                assert row[name] == value, name
    assert keys(record(two)["scores"]) == keys(record(one)["scores"])
    assert record(two)["scores"] == record(one)["scores"]
    assert keys(record(two)) | {"config": None} == keys(record(one)) | {"config": None}  # type: ignore[operator]
    assert record(two)["effective"] == record(one)["effective"] | {
        "processes": 2, "nodes": 2 if how == "two nodes" else 1, "effective_batch": 8
    }  # fmt: skip
    for name, tensor in load_checkpoint(two).classifier.state_dict().items():
        assert tensor.equal(load_checkpoint(trained).classifier.state_dict()[name]), name


@pytest.mark.hard
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_two_processes_stop_at_a_signal_to_the_first_and_resume(how: str) -> None:
    staged = ["callbacks=transfer", "freeze_epochs=1", "ema_decay=0.9"] + ["~callbacks.ema"] * (how == "fsdp")
    net = ["model.widths=[8,16]", "model.convs=[1,1]", "model.reduction=4", "model.hidden=8", "input=grey48"]
    faces = ["data=synthetic", "data.training=40", "data.public_test=5", "data.private_test=2", "batch_size=8"]
    machine = ["trainer.accelerator=cpu", "compile.cpu=false", "logger=csv", *SEVERAL[how]]
    child = start(*net, *faces, *machine, *staged, "trainer.max_epochs=60", "hydra.run.dir=two")
    while not Path("two", LAST_CHECKPOINT).is_file():
        time.sleep(0.05)
        assert child.poll() is None, wait(child)
    child.send_signal(signal.SIGTERM)
    _, errors = wait(child)
    assert child.returncode == 143, errors
    assert errors.count("Resume with: python -m emotion.train resume=two") == 1
    assert errors.count("SIGTERM: stopped") == 1
    epochs = read_checkpoint(Path("two", LAST_CHECKPOINT)).epoch + 2
    child = start("resume=two", f"trainer.max_epochs={epochs}", "~callbacks.early_stopping")
    _, errors = wait(child)
    assert child.returncode == 0, errors
    assert [int(row["epoch"]) for row in metrics(Path("two"))] == list(range(1, epochs + 1))
    assert record(Path("two"))["epochs"] == epochs
    load_checkpoint(Path("two", BEST_CHECKPOINT))


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [4, 5, 33, 96, 97, 513])
def test_processes_get_the_same_number_of_batches_and_every_row_once(rows: int, world: int) -> None:
    parts = [list(RowLoader(torch.arange(rows), 16, seed=0, rank=rank, world_size=world)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    batches = [batch.rows for part in parts for batch in part]
    assert 0 < min(map(len, batches))
    assert max(map(len, batches)) <= 16
    assert torch.cat(batches).sort().values.equal(torch.arange(rows))


@pytest.mark.parametrize("rows", [3, 4, 20, 100])
def test_processes_train_on_the_same_number_of_rows(rows: int) -> None:
    def batches(rank: int) -> list[RowBatch]:
        return list(
            RowLoader(torch.arange(rows), 16, 0, lambda g: torch.randperm(rows, generator=g), rank, world_size=3)
        )

    sizes = [[len(batch.rows) for batch in batches(rank)] for rank in range(3)]
    assert sizes[0] == sizes[1] == sizes[2]
    assert sum(map(sum, sizes)) == (rows // 3 * 3 if rows < 48 else 96)


def test_fewer_faces_than_processes_are_refused_at_once(small_config: Config, tmp_path: Path) -> None:
    cfg = small_config("split=official", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=40")
    with pytest.raises(UserError, match="24 faces for 40 processes; expected at least one each"):
        train(cfg, tmp_path / "run")


def test_an_epoch_of_two_processes_cannot_be_resumed_by_three() -> None:
    two, three = (RowLoader(torch.arange(50), 8, seed=0, world_size=world) for world in (2, 3))
    with pytest.raises(UserError, match=r"within an epoch of 2 processes .* with 3"):
        three.load_state_dict(two.state_dict() | {"next_batch": 1})
    three.load_state_dict(two.state_dict())


def trainer(config: Config, *overrides: str) -> tuple[Trainer, TrainConfig]:
    settings = setup.resolve(config("trainer.accelerator=cpu", "trainer.precision=32-true", *overrides), Path("run"))
    return setup.make_trainer(settings), settings


@pytest.mark.parametrize("how", SEVERAL)
def test_the_effective_batch_counts_all_processes_and_does_not_scale_the_learning_rate(
    how: str, small_config: Config
) -> None:
    built, settings = trainer(small_config, *SEVERAL[how], "trainer.accumulate_grad_batches=3", "optimizer.lr=0.01")
    assert setup.effective_batch(built, settings) == {
        "processes": 2, "nodes": 2 if how == "two nodes" else 1, "batch_size": 16, "accumulated": 3,
        "effective_batch": 96, "lr": 0.01,
    }  # fmt: skip


def test_lightning_does_not_requeue_slurm_jobs(small_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in slurm_variables(task=1).items():
        monkeypatch.setenv(name, value)
    built, _ = trainer(small_config, *SEVERAL["two nodes"])
    environment = built.strategy.cluster_environment  # type: ignore[attr-defined]
    assert type(environment).__name__ == "SLURMEnvironment"
    assert not environment.auto_requeue
    assert (built.global_rank, built.world_size) == (1, 2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.devices=2"], "ntasks-per-node=1"),
        (["trainer.devices=1", "trainer.num_nodes=4"], "--nodes=2"),
    ],
)
def test_slurm_tasks_must_match_the_trainers_processes(
    overrides: list[str], message: str, small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in slurm_variables(task=0).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"^SLURM: .*{message}"):
        trainer(small_config, "trainer=ddp", *overrides)


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_processor_needs_a_number_of_processes(how: str, small_config: Config) -> None:
    with pytest.raises(UserError, match=r"give the number of processes: trainer\.devices=2"):
        trainer(small_config, f"trainer={how}")


def test_ema_refuses_sharded_weights(small_config: Config) -> None:
    with pytest.raises(UserError, match=r"remove it: ~callbacks\.ema"):
        trainer(small_config, *SEVERAL["fsdp"], "callbacks=transfer")


@pytest.mark.parametrize("model", ["v4_attention", "resnet18", "vit_base_patch16_224"])
def test_each_block_is_sharded_separately(model: str) -> None:
    cfg = compose("train", f"model={model}", "run_dir=x")
    settings = setup.resolve(cfg, Path("run"))
    net = instantiate(
        {name: value for name, value in settings.model.items() if name != "weights"},
        num_classes=7, in_channels=settings.input["channels"], input_size=settings.input["size"],
    )  # fmt: skip
    depths = net.depths()
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    block_depths = [{depths[names[id(parameter)]] for parameter in block.parameters()} for block in blocks(net)]
    assert len(block_depths) >= max(depths.values()) - 2  # a stem of several modules is sharded with the head
    assert all(len(depth) == 1 for depth in block_depths)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"devices": 1}, False),
        ({"devices": "auto"}, False),
        ({"devices": [0]}, False),
        ({"devices": 2}, True),
        ({"devices": [0, 1]}, True),
        ({"devices": 1, "num_nodes": 2}, True),
        ({"devices": 1, "strategy": "ddp"}, True),
        ({"devices": 2, "strategy": "ddp_spawn"}, False),
    ],
)
def test_several_devices_or_nodes_mean_copies_of_the_network(settings: dict[str, Any], expected: bool) -> None:
    assert is_replicated({"accelerator": "cpu", **settings}) is expected
